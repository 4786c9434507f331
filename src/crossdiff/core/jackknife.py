"""95 % intervals over documents: delete-a-group jackknife on the grouped scaling sums."""

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


@dataclass(frozen=True)
class Intervals:
    """95 % bounds; NaN where a latent fired in fewer than `MIN_GROUPS` document groups or nothing is known.

    `nu_*` : ratio beta_m / beta_p of model m to the probe's own model p  [target, probe, model, latent]
    `own_*`: beta_p itself, the ratio's denominator                       [target, probe, latent]
    """

    nu_low: Ratios
    nu_high: Ratios
    own_low: Float64[Tensor, "target probe latent"]
    own_high: Float64[Tensor, "target probe latent"]


def ratios(
    beta: Float64[Tensor, "target probe model *group latent"],
) -> Float64[Tensor, "target probe model *group latent"]:
    """nu: every model's beta over that of the model whose direction is the probe."""
    own = torch.stack([beta[:, probe, probe] for probe in range(beta.shape[1])], dim=1)
    return beta / own.unsqueeze(2)


def intervals(sums: ScalingSums, products: Float64[Tensor, "probe model latent"]) -> Intervals:
    """Intervals of all nus and of the probes' own betas, in slices of latents."""
    parts = [
        _slice_intervals(sums.energy[:, part], sums.overlap[..., part], products[..., part])
        for part in _slices(sums.n_latents)
    ]
    return Intervals(*(torch.cat(bounds, dim=-1) for bounds in zip(*parts, strict=True)))


def _slice_intervals(
    energy: Tensor, overlap: Tensor, products: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    total = betas(energy.sum(0), overlap.sum(-2), products)
    without = betas(energy.sum(0) - energy, overlap.sum(-2, keepdim=True) - overlap, products)
    used, fired = _groups(energy)
    nu_low, nu_high = jackknife(ratios(total), ratios(without), used=used, fired=fired)
    own = torch.stack([total[:, p, p] for p in range(total.shape[1])], dim=1)
    own_without = torch.stack([without[:, p, p] for p in range(total.shape[1])], dim=1)
    return nu_low, nu_high, *jackknife(own, own_without, used=used, fired=fired)


def jackknife(
    estimate: Float64[Tensor, "*shape latent"],
    without: Float64[Tensor, "*shape group latent"],
    *,
    used: int,
    fired: Int[Tensor, " latent"],
) -> tuple[Tensor, Tensor]:
    """`estimate +- t se`, `se^2 = (G-1)/G sum_g (theta_(-g) - theta)^2`, over the G `used` groups."""
    deviation = without - estimate.unsqueeze(-2)
    variance = (used - 1) / max(used, 1) * deviation.square().sum(dim=-2)
    half = T_95[min(max(used - 1, 1), len(T_95)) - 1] * variance.sqrt()
    half = torch.where(fired >= MIN_GROUPS, half, torch.nan)
    return estimate - half, estimate + half


def _groups(energy: Float64[Tensor, "group latent"]) -> tuple[int, Int[Tensor, " latent"]]:
    """Groups that hold any document at all, and per latent the groups in which it fired."""
    return int((energy.sum(dim=1) > 0).sum()), (energy > 0).sum(dim=0)


def _slices(n_latents: int) -> list[slice]:
    return [slice(start, min(start + LATENT_CHUNK, n_latents)) for start in range(0, n_latents, LATENT_CHUNK)]
