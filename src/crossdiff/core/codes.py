"""Names of tensor axes, codes as lists of active entries, their norm, products with directions, histograms.

token     one position of a document, the same in every model of a pair (never a padding position)
model     one of the models compared; for a pair 0 is `base` and 1 is `tuned`
d_model   width of a model's residual stream
latent    one dictionary element; it has a code per token and a decoder direction per model
active    one (token, latent) entry whose code is not 0
document  one text of the corpus
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from crossdiff.core.dictionary import CodeNorm

Activations = Float[Tensor, "token model d_model"]
Code = Float[Tensor, "token latent"]
Directions = Float[Tensor, "latent model d_model"]
PerLatent = Float[Tensor, " latent"]
PerModel = Float[Tensor, " model"]
Bias = Float[Tensor, "model d_model"]
ActiveValues = Float[Tensor, " active"]
ActiveIndices = Int[Tensor, " active"]


@dataclass(frozen=True)
class SparseCode:
    """The non-zero entries of a code `[token, latent]`, sorted by (token, latent)."""

    token: ActiveIndices
    latent: ActiveIndices
    value: ActiveValues
    n_tokens: int
    n_latents: int

    def __len__(self) -> int:
        return self.value.shape[0]

    def dense(self) -> Code:
        """The code as a full matrix."""
        full = self.value.new_zeros(self.n_tokens, self.n_latents)
        full[self.token, self.latent] = self.value
        return full

    def row_starts(self) -> Int[Tensor, " token"]:
        """Position of each token's first entry, `[token]`."""
        counts = torch.bincount(self.token, minlength=self.n_tokens)
        return counts.cumsum(0) - counts


def code_norm(decoder: Directions, kind: CodeNorm) -> PerLatent:
    """The factor that turns a code into a scaled code `v_j = f_j * norm_j` (method.md section 2).

    With `|d^m|` the norm of a latent's direction in model m: sum = `sum_m |d^m|`,
    concat = `sqrt(sum_m |d^m|^2)`, mixed = concat + 0.1 sum, none = 1.
    """
    if kind == "none":
        return decoder.new_ones(decoder.shape[0])
    norms = decoder.norm(dim=2)
    match kind:
        case "sum":
            return norms.sum(dim=1)
        case "concat":
            return norms.norm(dim=1)
        case "mixed":
            return norms.norm(dim=1) + 0.1 * norms.sum(dim=1)


def check_latent(latent: Any, n_latents: int, whose: str) -> None:
    """ValueError unless `latent` is an index below `n_latents`."""
    is_number = hasattr(latent, "__index__") and not isinstance(latent, bool)
    if not is_number or not 0 <= latent < n_latents:
        raise ValueError(f"latent {latent!r} is not one of {whose}, whose latents are 0 to {n_latents - 1}")


def projections(
    y: Float[Tensor, "token row d_model"], code: SparseCode, decoder: Float[Tensor, "latent probe d_model"]
) -> Float[Tensor, "active row probe"]:
    """<y_tr, d_j^p> for every active entry (t, j), every row r of its token and every model's direction p.

    One sampled product of `y` as [(token row), d_model] with `decoder` as [(latent probe), d_model], both
    read in place, without gathered directions or a [latent, token] matrix. The rows of a token are
    consecutive, so that its few directions stay in the cache.
    """
    n_tokens, n_rows, n_probes = y.shape[0], y.shape[1], decoder.shape[1]
    # The pattern needs its entries in row order: token t owns n_rows consecutive rows, each of which has all
    # counts[t] of its active latents. `place` is the position of entry i of the code, for row r, in that
    # order.
    counts = torch.bincount(code.token, minlength=n_tokens)
    before = counts.cumsum(0) - counts
    inside = torch.arange(len(code), device=y.device) - before[code.token]
    row = torch.arange(n_rows, device=y.device)
    place = (n_rows * before[code.token] + inside)[:, None] + row * counts[code.token, None]
    # Entry (t, j) becomes the columns (j, 0), (j, 1), ... of the decoder's [(latent probe)] rows.
    column = torch.empty(len(code) * n_rows, n_probes, dtype=torch.int64, device=y.device)
    column[place] = (code.latent[:, None] * n_probes + torch.arange(n_probes, device=y.device))[:, None]
    row_start = torch.zeros(n_tokens * n_rows + 1, dtype=torch.int64, device=y.device)
    row_start[1:] = (counts * n_probes).repeat_interleave(n_rows).cumsum(0)
    shape = (n_tokens * n_rows, decoder.shape[0] * n_probes)
    zeros = y.new_zeros(column.numel())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse ")
        pattern = torch.sparse_csr_tensor(row_start, column.flatten(), zeros, shape, check_invariants=False)
    product = torch.sparse.sampled_addmm(pattern, y.flatten(0, 1), decoder.flatten(0, 1).T, beta=0.0)
    return product.values().view(-1, n_probes)[place]


PER_OCTAVE = 2
LOWEST, HIGHEST = -20, 20
"""Bins go from 2**-20 to 2**20, `PER_OCTAVE` to a doubling; what lies outside is counted in the end bins."""
N_BINS = (HIGHEST - LOWEST) * PER_OCTAVE


@dataclass(frozen=True)
class CodeHistogram:
    """Active tokens per latent and bin; bin i holds codes in [2**(LOWEST + i/PER_OCTAVE), the next edge)."""

    counts: Int64[Tensor, "chosen bin"]

    @classmethod
    def empty(cls, n_latents: int) -> CodeHistogram:
        """No token seen yet."""
        return cls(torch.zeros(n_latents, N_BINS, dtype=torch.int64))

    def add(self, code: Float[Tensor, "token chosen"]) -> None:
        """Count the active (positive) codes of these tokens."""
        place = code.nonzero(as_tuple=True)
        positions = (code[place].double().log2() - LOWEST) * PER_OCTAVE
        bins = positions.floor().long().clamp(0, N_BINS - 1)
        flat = place[1] * N_BINS + bins
        self.counts.view(-1).add_(torch.bincount(flat, minlength=self.counts.numel()))

    def of(self, place: int) -> dict[str, list[float] | list[int]] | None:
        """`edges` and `counts` of one latent, from its first to its last used bin; None if it never fired."""
        used = self.counts[place].nonzero().flatten()
        if not len(used):
            return None
        first, last = int(used[0]), int(used[-1]) + 1
        edges = [float(f"{2 ** (LOWEST + i / PER_OCTAVE):.6g}") for i in range(first, last + 1)]
        return {"edges": edges, "counts": self.counts[place, first:last].tolist()}
