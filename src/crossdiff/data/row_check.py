"""A check sum per stored row: an altered byte is noticed when the row is read, however large the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

_WORDS = ((8, torch.int64), (4, torch.int32), (2, torch.int16), (1, torch.uint8))


def row_check(
    x: Shaped[Tensor, "row d_model"], scale: Float[Tensor, " row"] | None = None
) -> Int[Tensor, " row"]:
    """Sum of a row's bytes as words of up to 8 bytes, modulo 2^64: one flipped bit always changes it.

    The float32 `scale` of an int8 row is one more word. Summed by numpy, because every reading thread would
    start a team of torch threads of its own.
    """
    row_bytes = x.shape[1] * x.itemsize
    word = next(dtype for size, dtype in _WORDS if row_bytes % size == 0)
    total = torch.from_numpy(x.contiguous().view(word).numpy().sum(axis=1, dtype=np.int64))
    return total if scale is None else total + scale.contiguous().view(torch.int32)


def refuse_altered(
    x: Shaped[Tensor, "row d_model"],
    *,
    scale: Float[Tensor, " row"] | None,
    check: Int[Tensor, " row"],
    path: Path,
    first: int = 0,
) -> None:
    """Raise where a row read from `path` is not the row that was written; row 0 of `x` is row `first`."""
    bad = (row_check(x, scale) != check).nonzero().flatten()
    if len(bad):
        raise ValueError(
            f"{path} was altered: {len(bad):,} rows differ from their check sums, the first of them "
            f"row {first + int(bad[0]):,}; remove {path.parent.parent} and run the same command again"
        )
