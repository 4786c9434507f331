"""The sparse step's operations as Triton kernels, for NVIDIA GPUs (and, in Triton's interpreter, for tests).

Every output element is summed by one program in a fixed order, in float32 whatever the rows are stored in, so
that equal inputs give equal bits; nothing is accumulated with atomics.
"""

from __future__ import annotations

from typing import no_type_check

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

from crossdiff.core.axes import ActiveIndices, ActiveValues
from crossdiff.core.codes import SparseCode
from crossdiff.core.sparse.kernels import AdamFactors, Backward, ByLatent, RowGradients, Rows, starts
from crossdiff.core.sparse.plain import PlainKernels
from crossdiff.core.sparse.scratch import Scratch

BLOCK = 1024
"""Columns that one program works on at a time."""


class TritonKernels(PlainKernels):
    """float32 (products also bfloat16) on a GPU; AuxK's selection is PyTorch's."""

    name = "triton"

    def above(self, product: Tensor, cut: Tensor) -> tuple[ActiveIndices, ActiveIndices, ActiveValues]:
        """Counted per block of a row, then written where the counts before it say."""
        n_rows, n_columns = product.shape
        n_blocks = triton.cdiv(n_columns, BLOCK)
        counts = torch.empty(n_rows * n_blocks, dtype=torch.int64, device=product.device)
        _count[(n_rows, n_blocks)](product, cut, counts, n_columns, n_blocks, BLOCK)
        start = starts(counts)
        row, column = torch.empty(2, int(start[-1]), dtype=torch.int64, device=product.device)
        value = torch.empty(row.shape[0], device=product.device)
        _gather[(n_rows, n_blocks)](product, cut, start, row, column, value, n_columns, n_blocks, BLOCK)
        return row, column, value

    def scores(self, x: Rows, encoder: Tensor, code: SparseCode) -> ActiveValues:
        """One dot product per program."""
        return _dots(x, encoder, code)

    def decode(self, code: SparseCode, groups: ByLatent, decoder: Tensor) -> Rows:
        """One token's columns per program."""
        start = starts(torch.bincount(code.token, minlength=code.n_tokens))
        return _bags(decoder, code.latent, start, code.value)

    def backward(
        self, code: SparseCode, groups: ByLatent, batch: Backward, decoder: Tensor, *, scratch: Scratch
    ) -> RowGradients:
        """Dot products for the codes' gradient, then one latent's columns per program."""
        x, gradient = batch.x, batch.gradient
        code_gradient = _dots(gradient, decoder, code)[groups.order]
        shape = groups.latent.shape[0], x.shape[1]
        encoder, directions = (scratch.take(name, shape, x) for name in ("encoder", "decoder"))
        _bags(x, groups.token, groups.start, code_gradient, out=encoder)
        _bags(gradient, groups.token, groups.start, code.value[groups.order], out=directions)
        bias = torch.segment_reduce(code_gradient, "sum", offsets=groups.start, initial=0)
        return RowGradients(groups.latent, encoder, bias, directions)

    def adam(
        self,
        tensors: tuple[Tensor, Tensor, Tensor],
        rows: Tensor,
        values: Tensor,
        factors: AdamFactors,
        *,
        skip: bool,
    ) -> None:
        """Adam on (parameter, first, second moment) in place, reading only the rows that have gradients."""
        n_rows = tensors[0].shape[0]
        row_of = torch.full((n_rows,), -1, dtype=torch.int64, device=values.device)
        row_of[rows] = torch.arange(rows.shape[0], device=values.device)
        width = tensors[0].numel() // max(n_rows, 1)
        clip, beta1, beta2, rate, root, eps = factors
        grid = (n_rows, triton.cdiv(width, BLOCK))
        _adam[grid](
            *tensors, row_of, values, width, beta1, (1 - beta1) * clip, beta2, (1 - beta2) * clip**2,
            rate, 1 / root, eps, skip, BLOCK,
        )  # fmt: skip


def _dots(left: Rows, right: Tensor, code: SparseCode) -> ActiveValues:
    out = torch.empty_like(code.value)
    if len(code):
        _dot[(len(code),)](left, right, code.token, code.latent, out, left.shape[1], BLOCK)
    return out


def _bags(
    rows: Tensor, index: ActiveIndices, start: Tensor, weight: ActiveValues, out: Tensor | None = None
) -> Tensor:
    """`out_b = sum over i in [start_b, start_b+1) of weight_i rows[index_i]`; an empty bag is 0."""
    n_bags, width = start.shape[0] - 1, rows.shape[1]
    found = torch.empty(n_bags, width, device=rows.device) if out is None else out
    if n_bags:
        _bag[(n_bags, triton.cdiv(width, BLOCK))](rows, index, start, weight, found, width, BLOCK)
    return found


@triton.jit
@no_type_check
def _count(product, cut, counts, n_columns, n_blocks, BLOCK: tl.constexpr):
    row, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    column = block * BLOCK + tl.arange(0, BLOCK)
    inside = column < n_columns
    entry = tl.load(product + row * n_columns + column, mask=inside, other=0).to(tl.float32)
    bound = tl.load(cut + column, mask=inside, other=0).to(tl.float32)
    passed = ((entry > bound) & inside).to(tl.int64)
    tl.store(counts + row * n_blocks + block, tl.sum(passed))


@triton.jit
@no_type_check
def _gather(product, cut, start, rows, columns, values, n_columns, n_blocks, BLOCK: tl.constexpr):
    row, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    column = block * BLOCK + tl.arange(0, BLOCK)
    inside = column < n_columns
    entry = tl.load(product + row * n_columns + column, mask=inside, other=0).to(tl.float32)
    bound = tl.load(cut + column, mask=inside, other=0).to(tl.float32)
    passed = (entry > bound) & inside
    place = tl.load(start + row * n_blocks + block) + tl.cumsum(passed.to(tl.int64), 0) - 1
    tl.store(rows + place, row, mask=passed)
    tl.store(columns + place, column.to(tl.int64), mask=passed)
    tl.store(values + place, entry, mask=passed)


@triton.jit
@no_type_check
def _dot(left, right, token, latent, out, width, BLOCK: tl.constexpr):
    entry = tl.program_id(0).to(tl.int64)
    left += tl.load(token + entry) * width
    right += tl.load(latent + entry) * width
    total = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, width, BLOCK):
        column = first + tl.arange(0, BLOCK)
        inside = column < width
        a = tl.load(left + column, mask=inside, other=0).to(tl.float32)
        b = tl.load(right + column, mask=inside, other=0).to(tl.float32)
        total += a * b
    tl.store(out + entry, tl.sum(total))


@triton.jit
@no_type_check
def _bag(rows, index, start, weight, out, width, BLOCK: tl.constexpr):
    bag = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    total = tl.zeros((BLOCK,), tl.float32)
    for entry in range(tl.load(start + bag), tl.load(start + bag + 1)):
        row = tl.load(rows + tl.load(index + entry) * width + column, mask=inside, other=0)
        total += tl.load(weight + entry) * row.to(tl.float32)
    tl.store(out + bag * width + column, total, mask=inside)


@triton.jit
@no_type_check
def _adam(
    weight, mean, square, row_of, gradient, width, keep1, add1, keep2, add2, rate, inverse_root, eps,
    skip: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    source = tl.load(row_of + row)
    inside = column < width
    if skip:
        inside = inside & (source >= 0)
    at = row * width + column
    g = tl.load(gradient + source * width + column, mask=inside & (source >= 0), other=0)
    m = keep1 * tl.load(mean + at, mask=inside, other=0) + add1 * g
    v = keep2 * tl.load(square + at, mask=inside, other=0) + add2 * g * g
    w = tl.load(weight + at, mask=inside, other=0) - rate * m / (tl.sqrt(v) * inverse_root + eps)
    tl.store(mean + at, m, mask=inside)
    tl.store(square + at, v, mask=inside)
    tl.store(weight + at, w, mask=inside)
