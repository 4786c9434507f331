"""Rows of two families side by side by the places of their tokens, at one width.

Two families have other tokens and may have other widths. Row i of the pair is token i of the shown tokenizer,
and in the other model the token that ends at the same character. Narrower rows are filled up with zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from crossdiff.data.moments import Moments
from crossdiff.data.paired_batch import LayerRows
from crossdiff.data.tokens import NO_PLACE, TokenSet


@dataclass(frozen=True)
class AlignedRows:
    """`LayerRows` of the shown tokens, from a harvest of the tokens that its model read.

    A row without a counterpart is NaN, and no mask keeps it (`order.kept_tokens`).
    """

    harvested: LayerRows
    read: TokenSet
    shown: TokenSet
    harvest_row: Int[Tensor, " row"]
    """Row of the harvest per shown token, else `NO_PLACE`."""
    d_model: int
    """Width of the pair's rows: that of the wider model."""

    @classmethod
    def of(cls, rows: LayerRows, read: TokenSet, shown: TokenSet, width: int) -> AlignedRows:
        """Rows of one side: the model that read the `shown` tokens, or the other one."""
        place = torch.arange(shown.n_tokens) if read is shown else shown.place
        assert place is not None
        return cls(rows, read, shown, place, width)

    @property
    def folder(self) -> Path:
        """The harvest artifact, for messages."""
        return self.harvested.folder

    @property
    def layer(self) -> int:
        """Index of the block whose output the rows are."""
        return self.harvested.layer

    @property
    def token_hash(self) -> str:
        """Hash of the shown token set, to which the rows belong."""
        return self.shown.token_hash

    @property
    def n_rows(self) -> int:
        """Number of shown tokens."""
        return self.shown.n_tokens

    @property
    def dtype(self) -> torch.dtype:
        """Number format of stored rows."""
        return self.harvested.dtype

    @property
    def width(self) -> int:
        """Width of the model; the columns beyond it are zeros."""
        return self.harvested.d_model

    @cached_property
    def _missing(self) -> Tensor:
        return self.harvest_row == NO_PLACE

    def place(self, row: int) -> str:
        """Origin of a row, for messages."""
        if self._missing[row]:
            return f"{self.folder}: token {row} has no counterpart"
        return self.harvested.place(int(self.harvest_row[row]))

    def moments(self) -> Moments:
        """Of aligned rows there are none in store: statistics are taken over the kept rows."""
        raise NotImplementedError("the statistics of aligned rows are those of the kept ones")

    def norms(self) -> Float[Tensor, " row"]:
        """Euclidean norm of every row; NaN without a counterpart."""
        norms = self.harvested.norms()[self.harvest_row.clamp(min=0)]
        return norms.masked_fill(self._missing, torch.nan)

    def rows(self, rows: Int[Tensor, " row"]) -> Float[Tensor, "row d_model"]:
        """Float32 activations of arbitrary rows, in the order given."""
        x = torch.zeros(len(rows), self.d_model)
        x[:, : self.width] = self.harvested.rows(self.harvest_row[rows].clamp(min=0))
        x[self._missing[rows]] = torch.nan
        return x

    def read_spans(
        self, spans: Sequence[tuple[int, int]], buffer: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Rows of spans of whole documents; the harvest's spans of the same documents are read."""
        theirs, inside, n_read = [], [torch.zeros(0, dtype=torch.int64)], 0
        for start, stop in spans:
            bounds = torch.searchsorted(self.shown.offsets, torch.tensor([start, stop]))
            first, last = self.read.offsets[bounds].tolist()
            theirs.append((first, last))
            inside.append(self.harvest_row[start:stop] - first + n_read)
            n_read += last - first
        x, scale = self.harvested.read_spans(theirs)
        missing = torch.cat([self._missing[:0], *(self._missing[start:stop] for start, stop in spans)])
        chosen = torch.cat(inside).masked_fill(missing, 0)
        out = torch.zeros(len(chosen), self.d_model, dtype=x.dtype)
        out[:, : self.width] = x[chosen]
        if scale is None:
            out[missing] = torch.nan
            return out, None
        return out, scale[chosen].masked_fill(missing, torch.nan)
