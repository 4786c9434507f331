"""Products of activations with decoder directions at the active entries of a code only."""

from __future__ import annotations

import warnings

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from crossdiff.core.axes import Activations, Directions
from crossdiff.core.codes import SparseCode
from crossdiff.core.crosscoder import Crosscoder

LATENT_CHUNK = 4096
TOKENS = 1024
LOOSE = 1 - 1e-5


@torch.no_grad()
def active_code(crosscoder: Crosscoder, xn: Activations) -> SparseCode:
    """The active entries of normalised activations, as `Crosscoder.encode_sparse`, at less memory traffic.

    The threshold is first compared, loosely and per latent, with the code before any scaling, so that the
    full matrix is only written and scanned once; `v > threshold` then decides among the few entries found.
    """
    norm, threshold = crosscoder.code_norm(), crosscoder.threshold
    floor = (threshold / norm * LOOSE).clamp(min=0)
    parts = [
        _active_part(crosscoder, xn[start : start + TOKENS], floor)
        for start in range(0, max(len(xn), 1), TOKENS)
    ]
    token = torch.cat([part[0] + TOKENS * i for i, part in enumerate(parts)])
    latent, value = torch.cat([part[1] for part in parts]), torch.cat([part[2] for part in parts])
    kept = value * norm[latent] > threshold
    return SparseCode(token[kept], latent[kept], value[kept], len(xn), crosscoder.n_latents)


def _active_part(crosscoder: Crosscoder, xn: Activations, floor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Token, latent and code of the entries above `floor`, by (token, latent)."""
    tokens, latents, values = [], [], []
    flat = xn.flatten(1)
    for start in range(0, crosscoder.n_latents, LATENT_CHUNK):
        chunk = slice(start, min(start + LATENT_CHUNK, crosscoder.n_latents))
        if crosscoder.log_gate is None:
            code = torch.addmm(crosscoder.encoder_bias[chunk], flat, crosscoder.encoder[chunk].flatten(1).T)
        else:
            code = crosscoder.positive_code(xn, chunk)
        token, latent = (code > floor[chunk]).nonzero(as_tuple=True)
        tokens.append(token)
        latents.append(latent + start)
        values.append(code[token, latent])
    token = torch.cat(tokens)
    order = torch.argsort(token, stable=True)
    return token[order], torch.cat(latents)[order], torch.cat(values)[order]


def reconstruct(crosscoder: Crosscoder, code: SparseCode) -> Activations:
    """The full normalised reconstruction x_hat, bias included, from the active entries alone."""
    flat = torch.nn.functional.embedding_bag(
        code.latent,
        crosscoder.decoder.detach().flatten(1),
        code.row_starts(),
        per_sample_weights=code.value,
        mode="sum",
    )
    return (flat + crosscoder.decoder_bias.detach().flatten()).unflatten(1, (-1, crosscoder.d_model))


def projections(
    y: Float[Tensor, "token row d_model"], code: SparseCode, decoder: Float[Tensor, "latent probe d_model"]
) -> Float[Tensor, "active row probe"]:
    """<y_tr, d_j^p> for every active entry (t, j), every row r of its token and every model's direction p.

    One sampled product of `y` as [(token row), d_model] with `decoder` as [(latent probe), d_model], both
    read in place: gathered directions, or anything of shape [latent, token], never exist. The rows of one
    token follow each other, so that its few directions stay in the cache.
    """
    n_tokens, n_rows, n_probes = y.shape[0], y.shape[1], decoder.shape[1]
    counts = torch.bincount(code.token, minlength=n_tokens)
    before = counts.cumsum(0) - counts
    inside = torch.arange(len(code), device=y.device) - before[code.token]
    row = torch.arange(n_rows, device=y.device)
    place = (n_rows * before[code.token] + inside)[:, None] + row * counts[code.token, None]
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


def gram(decoder: Directions) -> Float64[Tensor, "probe model latent"]:
    """<d_j^p, d_j^m>; the diagonal holds D = |d|^2. Summed in float64, in slices of latents."""
    slices = (part.double() for part in decoder.detach().split(LATENT_CHUNK))
    return torch.cat([torch.einsum("lpd,lmd->pml", part, part) for part in slices], dim=2)
