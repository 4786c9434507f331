"""Stage tokens: the corpus as token ids of one tokenizer and chat template, for every model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from crossdiff.data.corpus import CorpusSettings, as_mixture
from crossdiff.io.progress import show_notices
from crossdiff.models.pair import ModelSettings, resolve
from crossdiff.models.tokenizers import load_model_tokenizer
from crossdiff.settings import Runtime, Settings
from crossdiff.stages.import_activations import ImportTokensInputs, import_tokens
from crossdiff.stages.protocol import Stage, needs

if TYPE_CHECKING:
    from crossdiff.data.tokens import TokenSet

VERSION = 2


class TokensInputs(Settings):
    """What determines the token ids: the corpus, and the tokenizer with its chat template."""

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset()
    ADDED: ClassVar[frozenset[str]] = frozenset({"aligned", "aligned_fingerprint"})

    corpus: CorpusSettings
    corpus_fingerprint: str
    """`data.corpus.fingerprint(corpus)`."""
    tokenizer: ModelSettings
    """The model whose tokenizer and template are used: by default the reference pair's tuned model."""
    tokenizer_fingerprint: str
    """`models.pair.fingerprint(tokenizer)`, with `+letters` for a template that changes letters."""
    aligned: ModelSettings | None = None
    """The other model of two families, whose tokens are aligned with these (`data/alignment.py`)."""
    aligned_fingerprint: str | None = None


def run(
    inputs: TokensInputs | ImportTokensInputs, parents: Mapping[str, Path], draft: Path, runtime: Runtime
) -> dict[str, Any]:
    """Write the token set, continuing the draft of a killed run.

    Imported activations bring their tokens (`stages/import_activations.py`).
    """
    from crossdiff.data.alignment import described
    from crossdiff.data.build import build_token_set

    if isinstance(inputs, ImportTokensInputs):
        return import_tokens(inputs, parents, draft, runtime)
    organism = parents.get("organism")
    model = inputs.tokenizer
    tokenizer = load_model_tokenizer(model, resolve(model, organism))
    identity = hashlib.sha256(json.dumps(inputs.identity(), sort_keys=True).encode()).hexdigest()
    tokens = build_token_set(
        as_mixture(inputs.corpus),
        tokenizer,
        draft,
        organism=organism,
        progress=runtime.progress,
        identity=identity,
    )
    details, alignment = tokens.details, _align(inputs, tokenizer, tokens, organism, runtime)
    notices = [*details["notices"], *described(alignment)]
    show_notices("tokens", notices)
    return {
        "n_documents": tokens.n_documents,
        "n_tokens": tokens.n_tokens,
        "token_hash": tokens.token_hash,
        "tokens_per_kind": details["tokens_per_kind"],
        "duplicates": sum(source["duplicates"] for source in details["sources"].values()),
        "cut": sum(source["cut"] for source in details["sources"].values()),
        "bad": sum(source["bad"] for source in details["sources"].values()),
        "notices": notices,
        **({"alignment": alignment} if alignment else {}),
    }


def _align(
    inputs: TokensInputs, tokenizer: Any, tokens: TokenSet, organism: Path | None, runtime: Runtime
) -> dict[str, dict[str, int]]:
    """Align the other tokenizer's tokens; counts per model, empty where there is one tokenizer."""
    if inputs.aligned is None:
        return {}
    from crossdiff.data.alignment import align

    other = load_model_tokenizer(inputs.aligned, resolve(inputs.aligned, organism))
    corpus = as_mixture(inputs.corpus)
    return align(corpus, (tokenizer, other), tokens, organism=organism, progress=runtime.progress)


STAGE = Stage(
    "tokens",
    version=VERSION,
    run=run,
    reads=("organism",),
    writes="token ids, kinds, offsets, token hash",
    resources=needs(cpus=8, memory_gb=32, hours=6),
    has_settings=True,
)
