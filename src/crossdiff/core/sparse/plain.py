"""The sparse step's operations as plain PyTorch calls: bags of rows and sampled products, or dense chunks."""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor

from crossdiff.core.codes import ActiveIndices, ActiveValues, SparseCode
from crossdiff.core.dense import auxiliary_code
from crossdiff.core.sparse.kernels import Backward, ByLatent, RowGradients, Rows, Scratch, starts

PACK = 8
"""Booleans that are tested together as one 64-bit integer when looking for candidates."""

warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")


class PlainKernels:
    """Exact in any floating type, on any device."""

    name = "torch"
    dense_density = 0.12

    def above(self, product: Tensor, cut: Tensor) -> tuple[ActiveIndices, ActiveIndices, ActiveValues]:
        """Candidates by one comparison and a search through packs of booleans."""
        passes = torch.gt(product, cut)
        width = product.shape[1]
        flat = passes.flatten().nonzero().squeeze(1) if width % PACK else _nonzero_by_packs(passes)
        value = product.flatten()[flat]
        row = torch.div(flat, width, rounding_mode="floor")
        return row, flat - row * width, value if value.dtype == torch.float64 else value.float()

    def largest_per_token(
        self, pre: Tensor, norm: Tensor, k: int
    ) -> tuple[ActiveIndices, ActiveIndices, ActiveValues]:
        """`dense.auxiliary_code` and its non-zero entries."""
        code = auxiliary_code(pre.relu(), norm, k=k)
        token, latent = code.nonzero(as_tuple=True)
        return token, latent, code[token, latent]

    def scores(self, x: Rows, encoder: Tensor, code: SparseCode) -> ActiveValues:
        """A sampled dense-dense product."""
        return _sampled(x, encoder, code)

    def decode(self, code: SparseCode, groups: ByLatent, decoder: Tensor) -> Rows:
        """One bag of decoder rows per token."""
        start = starts(torch.bincount(code.token, minlength=code.n_tokens))
        return _bags(decoder, code.latent, start, code.value)

    def backward(
        self, code: SparseCode, groups: ByLatent, batch: Backward, decoder: Tensor, *, scratch: Scratch
    ) -> RowGradients:
        """A sampled product for the codes' gradient, then two bags of token rows per latent."""
        x, gradient = batch.x, batch.gradient
        code_gradient = _sampled(gradient, decoder, code)[groups.order]
        return RowGradients(
            groups.latent,
            encoder=_bags(x, groups.token, groups.start, code_gradient),
            encoder_bias=torch.segment_reduce(code_gradient, "sum", offsets=groups.start, initial=0),
            decoder=_bags(gradient, groups.token, groups.start, code.value[groups.order]),
        )


class DenseChunks(PlainKernels):
    """The same results by dense products over chunks of latents, for codes that are hardly sparse."""

    name = "dense chunks"

    def __init__(self, chunk: int = 4096) -> None:
        self.chunk = chunk

    def decode(self, code: SparseCode, groups: ByLatent, decoder: Tensor) -> Rows:
        """Products of a dense slice of the code with decoder rows, added up."""
        out = decoder.new_zeros(code.n_tokens, decoder.shape[1])
        for rows in self._rows(groups):
            out.addmm_(_dense(code, groups, rows), decoder[groups.latent[rows]])
        return out

    def backward(
        self, code: SparseCode, groups: ByLatent, batch: Backward, decoder: Tensor, *, scratch: Scratch
    ) -> RowGradients:
        """Three dense products per slice of latents."""
        x, gradient = batch.x, batch.gradient
        shape = groups.latent.shape[0], x.shape[1]
        encoder, directions = (scratch.take(name, shape, x) for name in ("encoder", "decoder"))
        bias = x.new_empty(groups.latent.shape[0])
        for rows in self._rows(groups):
            dense = _dense(code, groups, rows)
            torch.mm(dense.T, gradient, out=directions[rows])
            code_gradient = (gradient @ decoder[groups.latent[rows]].T).masked_fill_(dense == 0, 0)
            torch.mm(code_gradient.T, x, out=encoder[rows])
            bias[rows] = code_gradient.sum(dim=0)
        return RowGradients(groups.latent, encoder, bias, directions)

    def _rows(self, groups: ByLatent) -> list[slice]:
        n_rows = groups.latent.shape[0]
        return [slice(first, min(first + self.chunk, n_rows)) for first in range(0, n_rows, self.chunk)]


def _dense(code: SparseCode, groups: ByLatent, rows: slice) -> Tensor:
    """The columns `groups.latent[rows]` of the code as a matrix."""
    first, last = int(groups.start[rows.start]), int(groups.start[rows.stop])
    sizes = groups.start[rows.start : rows.stop + 1].diff()
    column = torch.repeat_interleave(torch.arange(sizes.shape[0], device=sizes.device), sizes)
    dense = code.value.new_zeros(code.n_tokens, sizes.shape[0])
    dense[groups.token[first:last], column] = code.value[groups.order[first:last]]
    return dense


def _nonzero_by_packs(passes: Tensor) -> Tensor:
    """Flat positions of true entries; looks at eight booleans at once, since few are true."""
    pack = passes.view(torch.int64).flatten().nonzero().squeeze(1)
    hit = passes.view(-1, PACK)[pack].nonzero()
    return pack[hit[:, 0]] * PACK + hit[:, 1]


def _bags(rows: Tensor, index: ActiveIndices, start: Tensor, weight: ActiveValues) -> Tensor:
    """`out_b = sum over i in [start_b, start_b+1) of weight_i rows[index_i]`; an empty bag is 0."""
    return F.embedding_bag(
        index, rows, start, per_sample_weights=weight, mode="sum", include_last_offset=True
    )


def _sampled(left: Tensor, right: Tensor, code: SparseCode) -> ActiveValues:
    """`<left_t, right_j>` at the entries of the code."""
    start = starts(torch.bincount(code.token, minlength=code.n_tokens))
    pattern = torch.sparse_csr_tensor(
        start,
        code.latent,
        torch.zeros_like(code.value),
        (code.n_tokens, code.n_latents),
        check_invariants=False,
    )
    return torch.sparse.sampled_addmm(pattern, left, right.T, beta=0.0).values()
