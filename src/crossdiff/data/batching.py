"""Forming batches of documents with little padding: packed rows, or rows of like length."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Rows of documents for one forward pass.

    Padding comes last in a row, where a causal model cannot see it from the documents.
    """

    rows: tuple[tuple[int, ...], ...]
    """Documents of every row, in order."""
    width: int
    n_tokens: int

    @property
    def n_padding(self) -> int:
        """Padded places of the batch."""
        return len(self.rows) * self.width - self.n_tokens

    def halves(self, lengths: Sequence[int]) -> list[Batch]:
        """The same rows as two batches; one row alone is split by documents, one document not at all."""
        if len(self.rows) > 1:
            middle = len(self.rows) // 2
            return [_batch(self.rows[:middle], lengths), _batch(self.rows[middle:], lengths)]
        row = self.rows[0]
        middle = len(row) // 2
        return [_batch((part,), lengths) for part in (row[:middle], row[middle:]) if part]


def form_batches(
    lengths: Sequence[int], *, batching: Literal["pack", "bucket"], batch_tokens: int, context: int
) -> list[Batch]:
    """Batches over documents of these lengths, at most `batch_tokens` places each (one row at least)."""
    rows = _packed(lengths, context) if batching == "pack" else _single(lengths)
    batches: list[list[tuple[int, ...]]] = []
    width = 0
    for row in rows:
        length = sum(lengths[document] for document in row)
        widest = max(width, length) if batches else length
        if not batches or widest * (len(batches[-1]) + 1) > batch_tokens:
            batches.append([])
            widest = length
        batches[-1].append(row)
        width = widest
    return [_batch(tuple(batch), lengths) for batch in batches]


def _batch(rows: tuple[tuple[int, ...], ...], lengths: Sequence[int]) -> Batch:
    sizes = [sum(lengths[document] for document in row) for row in rows]
    return Batch(rows, max(sizes), sum(sizes))


def _single(lengths: Sequence[int]) -> list[tuple[int, ...]]:
    return [(document,) for document in sorted(range(len(lengths)), key=lambda d: (-lengths[d], d))]


def _packed(lengths: Sequence[int], context: int) -> list[tuple[int, ...]]:
    """Best fit, longest first: each document goes into the fullest row of `context` places that takes it."""
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (places left, row), ascending
    for document in sorted(range(len(lengths)), key=lambda d: (-lengths[d], d)):
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


def batch_arrays(
    batch: Batch, ids: Int[Tensor, " token"], offsets: Int[Tensor, " boundary"], *, padding: int
) -> tuple[Int[Tensor, "row place"], Int[Tensor, "row place"], Int[Tensor, "row place"]]:
    """Token ids, positions that restart with every document, and every place's token index (-1: padding)."""
    shape = (len(batch.rows), batch.width)
    places = torch.full(shape, -1, dtype=torch.int64)
    positions = torch.zeros(shape, dtype=torch.int64)
    for index, row in enumerate(batch.rows):
        start = 0
        for document in row:
            first, last = int(offsets[document]), int(offsets[document + 1])
            stop = start + last - first
            places[index, start:stop] = torch.arange(first, last)
            positions[index, start:stop] = torch.arange(last - first)
            start = stop
        positions[index, start:] = torch.arange(batch.width - start)
    tokens = torch.where(places >= 0, ids[places.clamp(min=0)].long(), padding)
    return tokens, positions, places
