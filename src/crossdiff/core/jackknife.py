"""95 % intervals over documents: delete-a-group jackknife on the grouped scaling sums.

Tokens of one document are alike, so documents are resampled, in at most 20 hash groups (O(latents) state).
The ratio itself is used rather than its logarithm, because the ratios of exclusive latents lie around 0 and
may be negative. Where a latent fires in few documents a few groups carry most of the variance, so the degrees
of freedom are estimated from the groups' own deviations (Satterthwaite, as Bell and McCaffrey 2002 do for
clustered regression): Student's t with G - 1 gave 1 point less coverage there, the normal quantile 2.

Coverage is measured by `python -m crossdiff.bench coverage` (docs/latent_scaling.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from crossdiff.core.latent_scaling import ScalingSums, betas

LATENT_CHUNK = 4096
MIN_GROUPS = 5
T_95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093,
)  # fmt: skip  # two-sided 95 % quantile of Student's t for 1 to 19 degrees of freedom

Ratios = Float64[Tensor, "target probe model latent"]
Bounds = tuple[Float64[Tensor, "*shape latent"], Float64[Tensor, "*shape latent"]]


@dataclass(frozen=True)
class Intervals:
    """95 % bounds; NaN where a latent fired in fewer than `MIN_GROUPS` document groups.

    `nu_*` : ratio beta_m / beta_p of model m to the probe's own model p [target, probe, model, latent]; also
             NaN where beta_p is not clearly positive (its own interval reaches 0), since a ratio to nothing
             has no interval
    `own_*`: beta_p itself, the ratio's denominator [target, probe, latent]
    """

    nu_low: Ratios
    nu_high: Ratios
    own_low: Float64[Tensor, "target probe latent"]
    own_high: Float64[Tensor, "target probe latent"]


def own_betas(
    beta: Float64[Tensor, "target probe model *group latent"],
) -> Float64[Tensor, "target probe *group latent"]:
    """Beta of the model whose own direction is the probe."""
    return torch.stack([beta[:, probe, probe] for probe in range(beta.shape[1])], dim=1)


def ratios(
    beta: Float64[Tensor, "target probe model *group latent"],
) -> Float64[Tensor, "target probe model *group latent"]:
    """nu: every model's beta over that of the model whose direction is the probe."""
    return beta / own_betas(beta).unsqueeze(2)


def intervals(sums: ScalingSums, products: Float64[Tensor, "probe model latent"]) -> Intervals:
    """Intervals of all nus and of the probes' own betas, in slices of latents."""
    used = int((sums.energy.sum(dim=1) > 0).sum())
    parts = [
        _slice_intervals(sums.energy[:, part], sums.overlap[..., part], products[..., part], used=used)
        for part in _slices(sums.n_latents)
    ]
    return Intervals(*(torch.cat(bounds, dim=-1) for bounds in zip(*parts, strict=True)))


def _slice_intervals(
    energy: Tensor, overlap: Tensor, products: Tensor, *, used: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    whole = betas(energy.sum(0), overlap.sum(-2), products)
    without = betas(energy.sum(0) - energy, overlap.sum(-2, keepdim=True) - overlap, products)
    fired = (energy > 0).sum(dim=0)
    own_low, own_high = jackknife(own_betas(whole), own_betas(without), used=used, fired=fired)
    nu_low, nu_high = jackknife(ratios(whole), ratios(without), used=used, fired=fired)
    positive = (own_low > 0).unsqueeze(2)
    return (
        torch.where(positive, nu_low, torch.nan),
        torch.where(positive, nu_high, torch.nan),
        own_low,
        own_high,
    )


def jackknife(
    estimate: Float64[Tensor, "*shape latent"],
    without: Float64[Tensor, "*shape group latent"],
    *,
    used: int,
    fired: Int[Tensor, " latent"],
) -> Bounds:
    """`estimate +- t se`, `se^2 = (G-1)/G sum_g (theta_(-g) - theta)^2`, over the G `used` groups.

    With u_g the squared deviations, t has `3 (sum u)^2 / sum u^2` degrees of freedom (E u^2 = 3 sigma^4 for
    normal deviations), at most G - 1; groups that all agree give an interval of width 0.
    """
    square = (without - estimate.unsqueeze(-2)).square()
    total = square.sum(dim=-2)
    freedom = torch.where(total > 0, 3 * total.square() / square.square().sum(dim=-2), float(used))
    half = student(freedom.clamp(min=1, max=max(used - 1, 1))) * ((used - 1) / max(used, 1) * total).sqrt()
    half = torch.where(fired >= MIN_GROUPS, half, torch.nan)
    return estimate - half, estimate + half


def student(freedom: Float64[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
    """Two-sided 95 % quantile of Student's t for 1 to 19 degrees of freedom, linear in 1/freedom between."""
    table = torch.tensor(T_95, dtype=torch.float64, device=freedom.device)
    below = freedom.nan_to_num(1.0).floor().long().clamp(1, len(T_95) - 1)
    left, right = table[below - 1], table[below]
    weight = (1 / below - 1 / freedom) / (1 / below - 1 / (below + 1))
    return left + weight * (right - left)


def _slices(n_latents: int) -> list[slice]:
    return [slice(start, min(start + LATENT_CHUNK, n_latents)) for start in range(0, n_latents, LATENT_CHUNK)]
