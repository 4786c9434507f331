"""Batches of documents with little padding: packed rows, or rows of similar length."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Rows of documents for one forward pass, padded at the end, where causal models do not see padding."""

    rows: tuple[tuple[int, ...], ...]
    """Documents of every row, in order."""
    width: int
    n_tokens: int

    @property
    def n_padding(self) -> int:
        """Padded places of the batch."""
        return len(self.rows) * self.width - self.n_tokens

    def halves(self, lengths: Sequence[int]) -> list[Batch]:
        """The rows as two batches; one row is split between documents, one document is not split."""
        rows = self.rows
        if len(rows) == 1:
            middle = len(rows[0]) // 2
            parts = [(part,) for part in (rows[0][:middle], rows[0][middle:]) if part]
        else:
            parts = [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
        return [_batch(part, lengths) for part in parts]


MAX_PADDING = 0.04
"""Largest share of padding in a bucketed batch; a row that would raise it begins the next batch."""


def form_batches(
    lengths: Sequence[int],
    *,
    batching: Literal["pack", "bucket"],
    batch_tokens: int,
    context: int,
    group: Callable[[int], int] | None = None,
) -> list[Batch]:
    """Batches over documents of these lengths, at most `batch_tokens` places each (at least one row).

    Documents with lengths of different `group`s never share a batch.
    """
    members: dict[int, list[int]] = {}
    for document, length in enumerate(lengths):
        members.setdefault(0 if group is None else group(length), []).append(document)
    return [
        batch
        for _, documents in sorted(members.items(), reverse=True)
        for batch in _batches(documents, lengths, batching, batch_tokens, context)
    ]


def _batches(
    documents: Sequence[int],
    lengths: Sequence[int],
    batching: Literal["pack", "bucket"],
    batch_tokens: int,
    context: int,
) -> list[Batch]:
    longest_first = sorted(documents, key=lambda d: (-lengths[d], d))
    rows = _packed(longest_first, lengths, context) if batching == "pack" else [(d,) for d in longest_first]
    max_padding = 1.0 if batching == "pack" else MAX_PADDING  # all packed rows but the last are full
    batches: list[list[tuple[int, ...]]] = []
    width = n_tokens = 0
    for row in rows:  # longest first: the first row of a batch is its width
        length = sum(lengths[document] for document in row)
        places = width * (len(batches[-1]) + 1) if batches else 0
        is_full = places > batch_tokens or n_tokens + length < (1 - max_padding) * places
        if not batches or is_full:
            batches.append([])
            width, n_tokens = length, 0
        batches[-1].append(row)
        n_tokens += length
    return [_batch(tuple(batch), lengths) for batch in batches]


def _batch(rows: tuple[tuple[int, ...], ...], lengths: Sequence[int]) -> Batch:
    sizes = [sum(lengths[document] for document in row) for row in rows]
    return Batch(rows, max(sizes), sum(sizes))


def _packed(longest_first: Sequence[int], lengths: Sequence[int], context: int) -> list[tuple[int, ...]]:
    """Best fit: every document goes into the fullest row of `context` places with room for it."""
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (places left, row), ascending
    for document in longest_first:
        index = bisect.bisect_left(free, (lengths[document], -1))
        if index == len(free):
            rows.append([document])
            left, row = max(context, lengths[document]) - lengths[document], len(rows) - 1
        else:
            left, row = free.pop(index)
            rows[row].append(document)
            left -= lengths[document]
        if left:
            bisect.insort(free, (left, row))
    return [tuple(row) for row in sorted(rows, key=lambda row: -sum(lengths[d] for d in row))]


@dataclass(frozen=True)
class BatchArrays:
    """Input of a forward pass, and the row of the documents that every place becomes."""

    tokens: Int[Tensor, "row place"]
    positions: Int[Tensor, "row place"]
    """Restart with every document and with the padding."""
    rows: Int[Tensor, "row place"]
    """Place among the documents' rows, one document after the other; -1 is padding."""


def batch_arrays(
    batch: Batch,
    ids: Int[Tensor, " token"],
    starts: Int[Tensor, " document"],
    lengths: Int[Tensor, " document"],
) -> BatchArrays:
    """Arrays of a batch over documents that begin at token `starts` and have `lengths` tokens."""
    shape = (len(batch.rows), batch.width)
    tokens, positions = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
    rows = torch.full(shape, -1, dtype=torch.int64)
    first_row = (lengths.cumsum(0) - lengths).tolist()
    longest = max(int(lengths[document]) for row in batch.rows for document in row)
    for index, row in enumerate(batch.rows):
        place = 0
        for document in row:
            start, length = int(starts[document]), int(lengths[document])
            here = slice(place, place + length)
            tokens[index, here] = ids[start : start + length]
            positions[index, here] = torch.arange(length)
            rows[index, here] = torch.arange(first_row[document], first_row[document] + length)
            place += length
        # Some models read the highest position of a pass, so padding stays within the longest document.
        positions[index, place:] = torch.arange(batch.width - place) % longest
    return BatchArrays(tokens, positions, rows)
