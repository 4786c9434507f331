"""Settings of the annotators: one class per option of the group `annotator`, and the base for others."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, InstanceOf, SerializeAsAny

from crossdiff.annotation.results import Annotation
from crossdiff.annotation.subjects import CategoryLike, Document, Subject
from crossdiff.settings import Settings

Score = Literal["detection", "fuzz", "intruder"]
Effort = Literal["low", "medium", "high"]
N_SWAPPED = 10
"""Swapped controls of a blind run: examples of different latents, so that nothing holds them together."""


class Annotator(Protocol):
    """Turns blind subjects into annotations, one each, in order."""

    def annotate(self, subjects: Sequence[Subject]) -> Iterable[Annotation]:
        """One annotation with a typed state per subject."""
        ...


class OwnAnnotator(Settings):
    """Base of your annotator's settings (docs/add_an_annotator.md), which enter the key of its answers."""

    @abstractmethod
    def annotator(
        self, scheme: Sequence[CategoryLike], background: Sequence[Document], *, seed: int
    ) -> Annotator:
        """The annotator of a run, from the taxonomy's categories, random background documents, a seed."""


class Lexical(Settings):
    """Keywords near the activity, and the category with the most cue words; needs no model and no network.

    A word's weight falls by `decay` per token of distance, for a document's vote down to `floor`. A keyword
    or category needs `min_documents` documents, a category also `min_share` of the votes and more than
    background.
    """

    decay: float = Field(default=0.8, gt=0, lt=1)
    floor: float = Field(default=0.3, ge=0, le=1)
    min_documents: int = Field(default=3, ge=1)
    min_share: float = Field(default=0.3, gt=0, le=1)
    definition_weight: float = Field(default=0.5, ge=0)
    n_keywords: int = Field(default=8, ge=1)
    n_resamples: int = Field(default=25, ge=0)


class MessagesSettings(Settings):
    """Settings of every annotator behind a `/v1/messages` server.

    `n_votes` independent calls per latent with shuffled examples; `scores` are computed on held-out examples.
    A refused request is sent to the next of `fallback`: a model id, `masked` (the prompt with only the words
    near the activity), or `lexical`. `variants` (model ids, or `masked`) label everything once more with one
    vote, for the multiverse table. `framing` asks about the swapped controls in two other ways
    (annotation/results.py). A request that could pass `max_usd` is not sent. Raise `attempt` to send
    failed requests again; answered ones come from the ledger.
    """

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset({"concurrency", "timeout_s"})
    ADDED: ClassVar[frozenset[str]] = frozenset({"framing"})

    model: str
    effort: Effort | None = "low"
    n_votes: int = Field(default=3, ge=1)
    n_examples: int = Field(default=20, ge=1)
    max_tokens: int = Field(default=1024, ge=64)
    scores: tuple[Score, ...] = ("detection", "fuzz", "intruder")
    fallback: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    framing: bool = False
    max_usd: float = Field(default=5.0, ge=0)
    prices: Path | None = None
    attempt: int = 0
    concurrency: int = Field(default=8, ge=1)
    timeout_s: float = Field(default=120.0, gt=0)


def _checked_address(url: str) -> str:
    """An http(s) address without credentials, because settings are written to files."""
    parts = urlsplit(url)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            "base_url has credentials, or a part after `?` or `#`, and settings are written to files; give "
            "the address alone, and the key through the environment (ANTHROPIC_API_KEY, or the variable that "
            "annotator.api_key_env names)"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or not _has_port(url):
        raise ValueError(f"base_url={url!r} is no http address; give one such as http://localhost:8000")
    return url


def _has_port(url: str) -> bool:
    """Whether the address has no port, or one that is a number."""
    try:
        return urlsplit(url).port is None or True
    except ValueError:
        return False


Address = Annotated[str, AfterValidator(_checked_address)]


class Claude(MessagesSettings):
    """The Anthropic API, `concurrency` requests at a time; the key comes from ANTHROPIC_API_KEY only."""

    NOT_IDENTITY: ClassVar[frozenset[str]] = MessagesSettings.NOT_IDENTITY | {"base_url"}

    model: str = "claude-haiku-5-5"
    taxonomy_model: str = "claude-opus-5-5"
    fallback: tuple[str, ...] = ("claude-sonnet-5-5", "masked")
    base_url: Address = "https://api.anthropic.com"


class ClaudeBatch(Claude):
    """The Message Batches API: half the price, answers within 24 hours."""

    NOT_IDENTITY: ClassVar[frozenset[str]] = Claude.NOT_IDENTITY | {"poll_s"}

    poll_s: float = Field(default=30.0, gt=0)


class AnthropicCompatible(MessagesSettings):
    """Any server that serves `/v1/messages` (vLLM, SGLang, gateways).

    `structured` sends the reply schema as `output_config`; without it the prompt alone asks for the form.
    The key, where the server wants one, is read from the variable `api_key_env`.
    """

    base_url: Address
    structured: bool = False
    api_key_env: str = "ANTHROPIC_COMPATIBLE_API_KEY"
    effort: Effort | None = None
    max_usd: float = 0.0


class Transformers(Settings):
    """A local instruction model: `path` is a folder or a hub id.

    The category is that with the largest log-likelihood per token, less that after a content-free prompt.
    The key holds the folder's content, not its path, so a model that is trained further labels anew.
    """

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset({"path"})
    ADDED: ClassVar[frozenset[str]] = frozenset({"framing"})

    path: str
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    n_examples: int = Field(default=6, ge=1)
    max_label_tokens: int = Field(default=12, ge=1)
    max_prompt_tokens: int = Field(default=3000, ge=64)
    framing: bool = False
    """Ask about the swapped controls in two other ways (annotation/results.py)."""

    def identity(self) -> dict[str, Any]:
        """With `weights`: the fingerprint of the folder's files, or the hub id."""
        from crossdiff.models.pair import ModelSettings, fingerprint

        model = ModelSettings(name="annotator", path=self.path, revision=self.revision)
        return {**super().identity(), "weights": fingerprint(model)}


class Replay(Settings):
    """Answers from a ledger, without network and key, to repeat a published run.

    `run` is the id of a run in the ledger; None takes the only one.
    """

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset({"ledger"})

    ledger: Path
    run: str | None = None

    def identity(self) -> dict[str, Any]:
        """With `content`: the hash of the ledger's replies."""
        from crossdiff.annotation.api.ledger import content_hash

        return {**super().identity(), "content": content_hash(self.ledger)}


AnnotatorSettings = (
    Lexical
    | Claude
    | ClaudeBatch
    | AnthropicCompatible
    | Transformers
    | Replay
    | SerializeAsAny[InstanceOf[OwnAnnotator]]
)
