"""What a training batch needs of one model at one layer, be it stored on disk or computed on demand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from crossdiff.data.moments import Moments


class LayerRows(Protocol):
    """Activations [row, d_model] of one model at one layer, one row per token of the token set."""

    @property
    def folder(self) -> Path:
        """The harvest artifact, for messages."""
        ...

    @property
    def layer(self) -> int:
        """Index of the block whose output the rows are."""
        ...

    @property
    def token_hash(self) -> str:
        """Hash of the token set that the rows belong to."""
        ...

    @property
    def d_model(self) -> int:
        """Width of a row."""
        ...

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Number format in which rows are kept."""
        ...

    def place(self, row: int) -> str:
        """Where a row comes from, for messages."""
        ...

    def moments(self) -> Moments:
        """Float64 moments per group of rows."""
        ...

    def norms(self) -> Float[Tensor, " row"]:
        """Euclidean norm of every row, raw units, float32."""
        ...

    def rows(self, rows: Int[Tensor, " row"]) -> Float[Tensor, "row d_model"]:
        """Float32 activations of arbitrary rows, in the order given."""
        ...

    def read_spans(
        self, spans: Sequence[tuple[int, int]], buffer: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Rows [row, d_model] of spans of whole documents, as kept, and their int8 scales if any.

        A `buffer` that an earlier call gave out may be used again.
        """
        ...
