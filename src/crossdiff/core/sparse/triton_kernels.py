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

from crossdiff.core.codes import ActiveIndices, ActiveValues, SparseCode
from crossdiff.core.sparse.kernels import (
    AdamFactors,
    Backward,
    ByLatent,
    KernelsMissing,
    RowGradients,
    Rows,
    Scratch,
    starts,
)
from crossdiff.core.sparse.plain import PlainKernels

BLOCK = 1024
"""Columns that one program works on at a time, where it does not need a whole row."""


class TritonKernels(PlainKernels):
    """float32 (products also bfloat16) on a GPU; AuxK's selection is PyTorch's."""

    name = "triton"

    @classmethod
    def load(cls, device: str) -> TritonKernels:
        """The kernels, once one has run: to start any, Triton calls a C compiler, which a node may lack.

        Raises KernelsMissing with Triton's reason where that fails.
        """
        found = cls()
        try:
            found.above(torch.ones(1, 1, device=device), torch.zeros(1, device=device))
        except Exception as reason:
            told = str(reason).strip().splitlines() or [type(reason).__name__]
            raise KernelsMissing(f"Triton does not start ({told[0]})") from reason
        return found

    def above(self, product: Tensor, cut: Tensor) -> tuple[ActiveIndices, ActiveIndices, ActiveValues]:
        """Counted per block of a row, then written where the counts before it say."""
        n_rows, n_columns = product.shape
        n_blocks = -(-n_columns // BLOCK)
        counts = torch.empty(n_rows * n_blocks, dtype=torch.int64, device=product.device)
        _count[(n_rows, n_blocks)](product, cut, counts, n_columns, n_blocks, BLOCK)
        start = starts(counts)
        row, column = torch.empty(2, int(start[-1]), dtype=torch.int64, device=product.device)
        value = torch.empty(row.shape[0], device=product.device)
        _gather[(n_rows, n_blocks)](product, cut, start, row, column, value, n_columns, n_blocks, BLOCK)
        return row, column, value

    def scores(self, x: Rows, encoder: Tensor, code: SparseCode) -> ActiveValues:
        """One dot product per program."""
        out = torch.empty_like(code.value)
        if len(code):
            _dot[(len(code),)](x, encoder, code.token, code.latent, out, x.shape[1], BLOCK)
        return out

    def decode(self, code: SparseCode, groups: ByLatent, decoder: Tensor) -> Rows:
        """One token's columns per program."""
        start = starts(torch.bincount(code.token, minlength=code.n_tokens))
        width = decoder.shape[1]
        out = torch.empty(code.n_tokens, width, device=decoder.device)
        grid = (code.n_tokens, triton.cdiv(width, BLOCK))
        _bag[grid](decoder, code.latent, start, code.value, out, width, BLOCK)
        return out

    def backward(
        self, code: SparseCode, groups: ByLatent, batch: Backward, decoder: Tensor, *, scratch: Scratch
    ) -> RowGradients:
        """One latent per program, with its whole rows in registers, so that every row is read once."""
        n_rows, width = groups.latent.shape[0], batch.x.shape[1]
        encoder, directions = (
            scratch.take(name, (n_rows, width), batch.x) for name in ("encoder", "decoder")
        )
        bias = torch.empty(n_rows, device=batch.x.device)
        whole = triton.next_power_of_2(width)
        _latent[(n_rows,)](
            batch.x, batch.gradient, decoder, groups.latent, groups.start, groups.token,
            code.value[groups.order], encoder, directions, bias, width, whole,
            num_warps=min(16, max(1, whole // 512)),  # pyright: ignore[reportCallIssue]
        )  # fmt: skip
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
def _latent(
    x, gradient, decoder, latent, start, token, value, encoder_out, decoder_out, bias_out, width,
    WHOLE: tl.constexpr,
):  # fmt: skip
    group = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, WHOLE)
    inside = column < width
    at = decoder + tl.load(latent + group) * width + column
    direction = tl.load(at, mask=inside, other=0).to(tl.float32)
    to_encoder, to_decoder = tl.zeros((WHOLE,), tl.float32), tl.zeros((WHOLE,), tl.float32)
    to_bias = 0.0
    for entry in range(tl.load(start + group), tl.load(start + group + 1)):
        row = tl.load(token + entry) * width + column
        pull = tl.load(gradient + row, mask=inside, other=0).to(tl.float32)
        code_gradient = tl.sum(pull * direction)
        to_decoder += tl.load(value + entry) * pull
        to_encoder += code_gradient * tl.load(x + row, mask=inside, other=0).to(tl.float32)
        to_bias += code_gradient
    tl.store(encoder_out + group * width + column, to_encoder, mask=inside)
    tl.store(decoder_out + group * width + column, to_decoder, mask=inside)
    tl.store(bias_out + group, to_bias)


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
