"""What an annotator sees of a latent, blind and shuffled, with controls whose answer is known.

Also what a judge sees of an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Document:
    """A window of one document: token display strings and their kinds (`data.tokens.TokenKind`)."""

    document_id: str
    tokens: Sequence[str]
    kinds: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Example(Document):
    """A window in which the latent fires: one code per token (0 = inactive), `peak` indexes the window."""

    codes: NDArray[np.float32]
    peak: int
    quantile: int


@dataclass(frozen=True, slots=True)
class Subject:
    """One latent under a blind key. `score` examples come from documents that `explain` never shows."""

    key: str
    explain: tuple[Example, ...]
    score: tuple[Example, ...] = ()


@dataclass(frozen=True)
class Said:
    """One answer, what it answered, and what it is judged for."""

    behaviour: str
    prompt: str
    answer: str


class CategoryLike(Protocol):
    """What annotators need to know of a taxonomy's category (taxonomy.scheme.Category has it)."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def title(self) -> str: ...  # noqa: D102
    @property
    def definition(self) -> str: ...  # noqa: D102
    @property
    def cues(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def signals(self) -> Sequence[str]: ...  # noqa: D102


def examples_by_latent(frame: pd.DataFrame) -> dict[int, dict[str, tuple[Example, ...]]]:
    """Rows of `examples.parquet` as latent -> subset (`explain`, `score`) -> examples, in rank order."""
    import numpy as np

    ordered = frame.sort_values(["latent", "subset", "rank"], kind="stable")
    found: dict[int, dict[str, list[Example]]] = {}
    columns = ("latent", "subset", "document_id", "tokens", "kinds", "codes", "peak", "quantile")
    for latent, subset, document_id, tokens, kinds, codes, peak, quantile in zip(
        *(ordered[name] for name in columns), strict=True
    ):
        example = Example(
            document_id=str(document_id),
            tokens=list(tokens),
            kinds=np.asarray(kinds, dtype=np.uint8),
            codes=np.asarray(codes, dtype=np.float32),
            peak=int(peak),
            quantile=int(quantile),
        )
        found.setdefault(int(latent), {"explain": [], "score": []})[str(subset)].append(example)
    return {
        latent: {subset: tuple(examples) for subset, examples in subsets.items()}
        for latent, subsets in found.items()
    }


def background_documents(frame: pd.DataFrame) -> list[Document]:
    """Rows of `background.parquet`."""
    import numpy as np

    return [
        Document(document_id=str(document_id), tokens=list(tokens), kinds=np.asarray(kinds, dtype=np.uint8))
        for document_id, tokens, kinds in zip(
            frame["document_id"], frame["tokens"], frame["kinds"], strict=True
        )
    ]


SWAPPED = "control_swapped"
"""Role of a control made of one example each of different latents: nothing holds it together."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A latent with its examples and what the annotator must not learn: pair and role."""

    pair: str
    latent: int
    role: str
    explain: tuple[Example, ...]
    score: tuple[Example, ...] = ()


def blind_job(
    candidates: Sequence[Candidate], *, n_swapped: int, seed: int
) -> list[tuple[Subject, Candidate]]:
    """Candidates and swapped controls in random order, under keys that tell nothing.

    The order depends on `seed` and on the candidates themselves, not on the order they come in.
    """
    import numpy as np

    generator = np.random.default_rng([seed, 6])
    ordered = sorted(candidates, key=lambda candidate: (candidate.pair, candidate.role, candidate.latent))
    job = [*ordered, *_swapped(ordered, n_swapped, generator)]
    shuffled = [job[index] for index in generator.permutation(len(job))]
    return [
        (Subject(f"{number:05d}", candidate.explain, candidate.score), candidate)
        for number, candidate in enumerate(shuffled)
    ]


def _swapped(ordered: Sequence[Candidate], n_swapped: int, generator: np.random.Generator) -> list[Candidate]:
    """Controls that take example i from a different latent each; named after the first donor."""
    import numpy as np

    donors = [candidate for candidate in ordered if candidate.explain]
    lengths = [len(candidate.explain) for candidate in donors]
    if not donors or len(donors) < max(lengths):
        return []
    controls = []
    for _ in range(min(n_swapped, len(donors))):
        length = int(np.median(lengths))
        chosen = generator.permutation(len(donors))[:length]
        explain = tuple(
            donors[donor].explain[place % len(donors[donor].explain)] for place, donor in enumerate(chosen)
        )
        first = donors[chosen[0]]
        controls.append(Candidate(first.pair, first.latent, SWAPPED, explain))
    return controls
