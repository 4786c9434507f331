"""The causal check (method.md section 7, Minder): what some latents differ by, added to the base states."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from crossdiff.core.codes import SparseCode
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.steering import raw_directions


def difference_directions(crosscoder: Crosscoder) -> Float[Tensor, "latent d_model"]:
    """`d_j^tuned / s_tuned - d_j^base / s_base` in raw activation units; means and biases do not enter."""
    raw = raw_directions(crosscoder)
    return raw[:, 1] - raw[:, 0]


def patches(
    code: SparseCode,
    directions: Float[Tensor, "latent d_model"],
    members: Bool[Tensor, "set latent"],
) -> Float[Tensor, "set token d_model"]:
    """`sum_{j in S} f_j (d_j^tuned / s_tuned - d_j^base / s_base)` for every set S, active entries only."""
    found = directions.new_zeros(len(members), code.n_tokens, directions.shape[1])
    for patch, member in zip(found, members, strict=True):
        kept = member[code.latent]
        rows = code.value[kept, None] * directions[code.latent[kept]]
        patch.index_add_(0, code.token[kept], rows)
    return found


def divergence(
    tuned: Float[Tensor, "place vocabulary"], patched: Float[Tensor, "state place vocabulary"]
) -> Float[Tensor, "state place"]:
    """KL(tuned || patched) of the next-token distributions, in nats, from logits."""
    target = tuned.log_softmax(dim=-1)
    return (target.exp() * (target - patched.log_softmax(dim=-1))).sum(dim=-1)


def sets_of(latents: Sequence[Int[Tensor, "_"]], *, n_latents: int) -> Bool[Tensor, "set latent"]:
    """Membership masks of lists of latents."""
    members = torch.zeros(len(latents), n_latents, dtype=torch.bool)
    for row, chosen in zip(members, latents, strict=True):
        row[chosen] = True
    return members


def gap_closed(
    divergences: Float64[Tensor, "condition document"],
    n_tokens: Float64[Tensor, " document"],
    *,
    draws: int,
    generator: torch.Generator,
) -> tuple[Float64[Tensor, "condition figure"], Float64[Tensor, "draw condition"]]:
    """Mean KL per token and `1 - KL / KL_base` of every condition (the first is the unpatched base state).

    Figures: kl, kl_low, kl_high, closed, closed_low, closed_high; 95 % percentile intervals of `draws`
    resamplings of documents, one resampling shared by all conditions. Also returns the resampled shares
    closed, so that conditions can be compared pairwise.
    """
    n = divergences.shape[1]
    weights = torch.zeros(draws, n, dtype=torch.float64)
    picked = torch.randint(n, (draws, n), generator=generator)
    weights.scatter_add_(1, picked, torch.ones(draws, n, dtype=torch.float64))
    mean = divergences.sum(1) / n_tokens.sum()
    resampled = (weights @ divergences.T) / (weights @ n_tokens)[:, None]
    closed, closed_resampled = 1 - mean / mean[0], 1 - resampled / resampled[:, :1]
    columns = [mean, *_percentiles(resampled), closed, *_percentiles(closed_resampled)]
    return torch.stack(columns, dim=1), closed_resampled


def _percentiles(resampled: Float64[Tensor, "draw condition"]) -> Tensor:
    return resampled.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
