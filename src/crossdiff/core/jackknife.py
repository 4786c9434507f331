"""95 % intervals over documents: delete-a-group jackknife on the grouped scaling sums.

Tokens of one document are alike, so documents are resampled, in at most 20 hash groups (O(latents) state).
The ratio itself is used rather than its logarithm, because the ratios of exclusive latents lie around 0 and
may be negative. Where a latent fires in few documents, or in documents of unequal length, a few groups carry
most of the sums and of the variance. Student's t then takes the smaller of two counts of degrees of freedom:
one from the groups' own deviations (Satterthwaite, as Bell and McCaffrey 2002 do for clustered regression),
one from their shares of the latent's energy. The first alone is itself estimated from those few groups and
comes out too large: 50-fold unequal documents were covered by 88 to 94 %, with both counts by 94 to 97 %.

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
    fired, limit = (energy > 0).sum(dim=0), freedom_by_energy(energy)
    own_low, own_high = jackknife(own_betas(whole), own_betas(without), used=used, fired=fired, limit=limit)
    nu_low, nu_high = jackknife(ratios(whole), ratios(without), used=used, fired=fired, limit=limit)
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
    limit: Float64[Tensor, " latent"],
) -> Bounds:
    """`estimate +- t se`, `se^2 = (G-1)/G sum_g (theta_(-g) - theta)^2`, over the G `used` groups.

    With u_g the squared deviations, t has `3 (sum u)^2 / sum u^2` degrees of freedom (E u^2 = 3 sigma^4 for
    normal deviations), at most G - 1 and at most `limit`; groups that all agree give an
    interval of width 0. NaN where fewer than `MIN_GROUPS` groups `fired`.
    """
    square = (without - estimate.unsqueeze(-2)).square()
    total = square.sum(dim=-2)
    freedom = torch.where(total > 0, 3 * total.square() / square.square().sum(dim=-2), float(used))
    freedom = torch.minimum(freedom, limit).clamp(min=1, max=max(used - 1, 1))
    half = student(freedom) * ((used - 1) / max(used, 1) * total).sqrt()
    half = torch.where(fired >= MIN_GROUPS, half, torch.nan)
    return estimate - half, estimate + half


def freedom_by_energy(energy: Float64[Tensor, "group latent"]) -> Float64[Tensor, " latent"]:
    """Satterthwaite's degrees of freedom for group variances `C_g^2`: `(sum C_g^2)^2 / sum C_g^4`.

    A group weighs in the ratio by its share of the energy, so its variance goes with the square of that where
    documents differ as wholes. Groups of equal energy count in full; NaN if the latent was never active.
    """
    square = energy.square()
    return square.sum(dim=0).square() / square.square().sum(dim=0)


def student(freedom: Float64[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
    """Two-sided 95 % quantile of Student's t."""
    from scipy.special import stdtrit

    return torch.from_numpy(stdtrit(freedom.cpu().numpy(), 0.975)).to(freedom.device)


def _slices(n_latents: int) -> list[slice]:
    return [slice(start, min(start + LATENT_CHUNK, n_latents)) for start in range(0, n_latents, LATENT_CHUNK)]
