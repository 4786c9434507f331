"""Examples of a latent: windows of documents around its peaks, one per document, without near-duplicates."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from crossdiff.core.documented_latents import Entry, ExampleReservoirs
from crossdiff.core.streaming import mix
from crossdiff.data.settings import N_TOP, SUBSETS, DocumentsSettings, Subset
from crossdiff.data.tokens import TokenSet

Source = Literal["top", "quantile"]
SHINGLE = 5
SAME = 0.7


def document_hashes(document_ids: Sequence[str], *, salt: str) -> Int[Tensor, " document"]:
    """Stable 63-bit hashes of document ids."""
    digests = (hashlib.sha256(f"{salt}:{name}".encode()).digest() for name in document_ids)
    return torch.tensor([int.from_bytes(digest[:8], "big") >> 1 for digest in digests], dtype=torch.int64)


def for_scoring(hashes: Int[Tensor, " document"], share: float) -> Tensor:
    """Whether each document serves as a held-out example only."""
    return mix(hashes, salt=7).double() / 2**63 < share


@dataclass(frozen=True)
class Window:
    """Consecutive tokens of one document around a peak; `start` and `peak` count from document and window."""

    document: int
    start: int
    peak: int
    rows: range
    peak_code: float


@dataclass(frozen=True)
class Example:
    """A chosen window and its source; `quantile` is -1 for the highest peaks."""

    subset: Subset
    source: Source
    quantile: int
    window: Window


def window_around(entry: Entry, token_set: TokenSet, length: int) -> Window:
    """At most `length` tokens with the peak at three quarters, so that the text after it is seen too."""
    first, end = int(token_set.offsets[entry.document]), int(token_set.offsets[entry.document + 1])
    begin = max(first, min(entry.row - 3 * length // 4, end - length))
    rows = range(begin, min(begin + length, end))
    return Window(entry.document, begin - first, entry.row - begin, rows, entry.peak)


@dataclass
class Distinct:
    """Windows of one latent without near-duplicates, one per document.

    Windows are near-duplicates when their runs of `SHINGLE` tokens overlap by more than `SAME` (Jaccard).
    """

    token_set: TokenSet
    documents: set[int] = field(default_factory=set)
    shingles: list[frozenset[tuple[int, ...]]] = field(default_factory=list)
    n_refused: int = 0

    def accept(self, window: Window) -> bool:
        """Whether the window is new; it is remembered if so."""
        if window.document in self.documents:
            return False
        runs = shingles(self.token_set.ids[window.rows.start : window.rows.stop].tolist())
        if any(overlap(runs, other) > SAME for other in self.shingles):
            self.n_refused += 1
            return False
        self.documents.add(window.document)
        self.shingles.append(runs)
        return True


def shingles(ids: Sequence[int]) -> frozenset[tuple[int, ...]]:
    """Runs of `SHINGLE` token ids; a shorter window is one run."""
    if len(ids) <= SHINGLE:
        return frozenset([tuple(ids)])
    return frozenset(zip(*(ids[i:] for i in range(SHINGLE)), strict=False))


def overlap(left: frozenset, right: frozenset) -> float:
    """Jaccard overlap of two sets that are not both empty."""
    n_shared = len(left & right)
    return n_shared / (len(left) + len(right) - n_shared)


def pick_examples(
    reservoirs: dict[Subset, ExampleReservoirs],
    place: int,
    *,
    token_set: TokenSet,
    settings: DocumentsSettings,
) -> tuple[list[Example], int]:
    """Examples of the latent at `place`, and how many near-duplicate windows were refused."""
    distinct, picked = Distinct(token_set), []
    for subset in SUBSETS:
        size, reservoir = settings.size(subset), reservoirs[subset]
        tops = [(-1, entry) for entry in reservoir.top.entries(place)]
        spread = list(_over_quantiles(reservoir.sample.entries(place), settings.n_quantiles))
        wanted: tuple[tuple[Source, list[tuple[int, Entry]], int], ...] = (
            ("top", tops, size - size // 2),
            ("quantile", spread, size // 2),
        )
        for source, candidates, count in wanted:
            around = ((quantile, window_around(e, token_set, settings.window)) for quantile, e in candidates)
            fresh = ((quantile, window) for quantile, window in around if distinct.accept(window))
            picked += [Example(subset, source, quantile, window) for quantile, window in islice(fresh, count)]
    return picked, distinct.n_refused


def top_examples(
    reservoirs: dict[Subset, ExampleReservoirs],
    place: int,
    *,
    token_set: TokenSet,
    settings: DocumentsSettings,
) -> list[Example]:
    """The `N_TOP` documents with the highest peaks, of both subsets, near-duplicates included."""
    entries: list[tuple[Entry, Subset]] = [
        (entry, subset) for subset in SUBSETS for entry in reservoirs[subset].top.entries(place)
    ]
    highest = sorted(entries, key=lambda item: (-item[0].peak, item[0].document))[:N_TOP]
    return [
        Example(subset, "top", -1, window_around(entry, token_set, settings.window))
        for entry, subset in highest
    ]


def _over_quantiles(sample: list[Entry], n_quantiles: int) -> Iterator[tuple[int, Entry]]:
    """(quantile, entry) of a sample of documents; the quantiles of peaks (0 the lowest) take turns."""
    place = {entry: i for i, entry in enumerate(sample)}
    by_peak = sorted(sample, key=lambda entry: (entry.peak, entry.document))
    bins: list[list[Entry]] = [[] for _ in range(n_quantiles)]
    for rank, entry in enumerate(by_peak):
        bins[rank * n_quantiles // len(by_peak)].append(entry)
    for members in bins:
        members.sort(key=lambda entry: place[entry])
    for turn in range(max((len(members) for members in bins), default=0)):
        for quantile in reversed(range(n_quantiles)):
            if turn < len(bins[quantile]):
                yield quantile, bins[quantile][turn]
