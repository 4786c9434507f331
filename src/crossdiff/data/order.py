"""Which rows a mask keeps, and the order of training rows: a pure function of the seed and the position.

Rows lie in blocks of whole, consecutive documents. An epoch permutes the blocks, takes them in windows of
several blocks, and shuffles the kept rows of a window. So the disk is read in whole blocks, one window is in
memory, and a batch is addressed by its number.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from crossdiff.data.settings import MaskSettings
from crossdiff.data.tokens import NO_PLACE, TokenKind, TokenSet

BLOCK_ROWS = 512
"""Least rows of a block, which is one sequential read (3.7 MB per model at d_model 3584 in bf16)."""


@dataclass(frozen=True)
class Segment:
    """Places `start` up to `stop` of the shuffled rows of window `window`."""

    epoch: int
    window: int
    start: int
    stop: int


def document_blocks(offsets: Int[Tensor, " boundary"]) -> Int[Tensor, " block_boundary"]:
    """Row boundaries of blocks of whole documents, at least `BLOCK_ROWS` rows each (but the last)."""
    boundaries = offsets.numpy()
    starts = [int(boundaries[0])]
    while starts[-1] < boundaries[-1]:
        index = int(np.searchsorted(boundaries, starts[-1] + BLOCK_ROWS))
        starts.append(int(boundaries[min(index, len(boundaries) - 1)]))
    return torch.tensor(starts)


class EpochOrder:
    """Addresses the endless stream of epochs over the kept rows.

    `kept` marks the rows that training may see, `blocks` are the row boundaries of the blocks, and
    `window_blocks` is the number of blocks that are mixed at a time.
    """

    def __init__(
        self,
        kept: Bool[Tensor, " row"],
        blocks: Int[Tensor, " block_boundary"],
        *,
        seed: int,
        window_blocks: int,
    ) -> None:
        self.kept = kept
        self.seed = seed
        self.window_blocks = window_blocks
        self.boundaries = blocks.numpy()
        self.n_blocks = len(self.boundaries) - 1
        self.n_windows = -(-self.n_blocks // window_blocks)
        self.block_counts = np.add.reduceat(kept.numpy(), self.boundaries[:-1], dtype=np.int64)
        self.n_rows = int(self.block_counts.sum())
        if self.n_rows == 0:
            raise ValueError("no training row is left after the mask; use a longer corpus or a weaker mask")
        self._plan = lru_cache(maxsize=4)(self._make_plan)
        self._shuffle = lru_cache(maxsize=4)(self._make_shuffle)

    def segments(self, start: int, stop: int) -> list[Segment]:
        """Segments of positions `start` up to `stop` of the stream, in order."""
        segments = []
        while start < stop:
            epoch, place = divmod(start, self.n_rows)
            ends = self._plan(epoch)[1]
            window = int(np.searchsorted(ends, place, side="right"))
            first = int(ends[window - 1]) if window else 0
            length = min(stop - start, int(ends[window]) - place)
            segments.append(Segment(epoch, window, place - first, place - first + length))
            start += length
        return segments

    def spans(self, epoch: int, window: int) -> list[tuple[int, int]]:
        """Row spans of one window's blocks that keep a row, ascending (the order on disk)."""
        return [
            (int(self.boundaries[block]), int(self.boundaries[block + 1]))
            for block in self._blocks(epoch, window)
            if self.block_counts[block]
        ]

    def shuffle(self, epoch: int, window: int) -> Int[Tensor, " row"]:
        """Permutation of the window's kept rows, as indices into these rows in ascending order."""
        return self._shuffle(epoch, window)

    def next_window(self, epoch: int, window: int) -> tuple[int, int] | None:
        """The next window, of the next epoch after the last."""
        return (epoch, window + 1) if window + 1 < self.n_windows else (epoch + 1, 0)

    def _blocks(self, epoch: int, window: int) -> np.ndarray:
        order = self._plan(epoch)[0]
        return np.sort(order[window * self.window_blocks : (window + 1) * self.window_blocks])

    def _make_plan(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        order = _generator(self.seed, epoch).permutation(self.n_blocks)
        starts = np.arange(0, self.n_blocks, self.window_blocks)
        return order, np.add.reduceat(self.block_counts[order], starts).cumsum()

    def _make_shuffle(self, epoch: int, window: int) -> Tensor:
        count = int(self.block_counts[self._blocks(epoch, window)].sum())
        return torch.from_numpy(_generator(self.seed, epoch, window).permutation(count))


class CorpusOrder(EpochOrder):
    """One pass over the kept rows in corpus order, window by window."""

    def __init__(
        self,
        kept: Bool[Tensor, " row"],
        blocks: Int[Tensor, " block_boundary"],
        *,
        window_blocks: int,
    ) -> None:
        super().__init__(kept, blocks, seed=0, window_blocks=window_blocks)

    def next_window(self, epoch: int, window: int) -> tuple[int, int] | None:
        """The next window that keeps a row; None after the last."""
        ends = self._plan(epoch)[1]
        following = int(np.searchsorted(ends, ends[window], side="right"))
        return (epoch, following) if following < self.n_windows else None

    def _make_plan(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        starts = np.arange(0, self.n_blocks, self.window_blocks)
        return np.arange(self.n_blocks), np.add.reduceat(self.block_counts, starts).cumsum()

    def _make_shuffle(self, epoch: int, window: int) -> Tensor:
        return torch.arange(int(self.block_counts[self._blocks(epoch, window)].sum()))


def _generator(*address: int) -> np.random.Generator:
    digest = hashlib.sha256(repr(address).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


def kept_kinds(mask: MaskSettings) -> list[TokenKind]:
    """The kinds of tokens that a mask keeps, never BOS."""
    dropped = {TokenKind.BOS}
    if mask.mask == "no_template":
        dropped.add(TokenKind.TEMPLATE)
    return [kind for kind in TokenKind if kind not in dropped]


def kept_tokens(tokens: TokenSet, mask: MaskSettings) -> Bool[Tensor, " row"]:
    """Rows that the mask keeps by kind and position, with a counterpart; `outlier_norm` needs activations."""
    kept = torch.ones(tokens.n_tokens, dtype=torch.bool)
    for which in dropped_tokens(tokens, mask).values():
        kept &= ~which
    return kept


def dropped_tokens(tokens: TokenSet, mask: MaskSettings) -> dict[str, Bool[Tensor, " row"]]:
    """Rows that a rule drops by itself, per rule that looks at tokens alone; the names are for messages."""
    kinds = torch.tensor(kept_kinds(mask), dtype=torch.uint8)
    dropped = {f"mask.mask={mask.mask} drops": ~torch.isin(tokens.kind, kinds)}
    if mask.skip_first:
        dropped[f"mask.skip_first={mask.skip_first}"] = tokens.least_position < mask.skip_first
    if tokens.place is not None:
        dropped["the alignment drops"] = tokens.place == NO_PLACE
    return dropped
