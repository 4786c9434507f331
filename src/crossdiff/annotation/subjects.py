"""What annotators see of latents (blind, shuffled, with controls), and judges of answers."""

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
    """One latent under a blind key; `explain` and `score` have examples of different documents."""

    key: str
    explain: tuple[Example, ...]
    score: tuple[Example, ...] = ()


@dataclass(frozen=True)
class Said:
    """A model's answer to a prompt, and the behaviour that is judged in it."""

    behaviour: str
    prompt: str
    answer: str


class CategoryLike(Protocol):
    """The part of a category (`taxonomy.scheme.Category`) that annotators use."""

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
    """Latent -> subset (`explain`, `score`) -> examples in rank order, from rows of `examples.parquet`."""
    import numpy as np

    ordered = frame.sort_values(["latent", "subset", "rank"], kind="stable")
    by_latent: dict[int, dict[str, list[Example]]] = {}
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
        by_latent.setdefault(int(latent), {"explain": [], "score": []})[str(subset)].append(example)
    return {
        latent: {subset: tuple(examples) for subset, examples in subsets.items()}
        for latent, subsets in by_latent.items()
    }


def background_documents(frame: pd.DataFrame) -> list[Document]:
    """The documents in rows of `background.parquet`."""
    import numpy as np

    return [
        Document(document_id=str(document_id), tokens=list(tokens), kinds=np.asarray(kinds, dtype=np.uint8))
        for document_id, tokens, kinds in zip(
            frame["document_id"], frame["tokens"], frame["kinds"], strict=True
        )
    ]


SWAPPED = "control_swapped"
"""Role of a control whose examples are of different latents, so that they have nothing in common."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A latent with its examples, and pair and role, which the annotator must not learn."""

    pair: str
    latent: int
    role: str
    explain: tuple[Example, ...]
    score: tuple[Example, ...] = ()


def blind_job(
    candidates: Sequence[Candidate], *, n_swapped: int, seed: int
) -> list[tuple[Subject, Candidate]]:
    """Candidates and swapped controls in random order, under blind keys.

    The order depends on `seed` and the candidates, not on the order of `candidates`.
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
    """Controls whose examples come from different latents; named after the first."""
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
