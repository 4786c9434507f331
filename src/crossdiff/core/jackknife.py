"""95 % intervals over documents, on the scaling sums of document groups.

Tokens of one document are alike, so documents are resampled, in at most 20 hash groups (O(latents) state):
the value without a group shows the group's influence. The ratio is used rather than its logarithm, because
ratios of exclusive latents are around 0 and may be negative.

Betas get the delete-a-group jackknife. Where a latent fires in few documents, or in documents of unequal
length, a few groups have most of the sums and of the variance. Student's t then uses the smaller of two
degrees of freedom: from the groups' deviations, and from their shares of the latent's energy. These intervals
are wide rather than narrow, because a beta's is only compared with 0. Intervals of the ratios, which are
printed and compared with limits, come from `core/ratio_intervals.py`.

Coverage is measured by `python -m crossdiff.bench coverage` (docs/latent_scaling.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from crossdiff.core.drift import drift_of
from crossdiff.core.latent_scaling import ScalingSums, betas
from crossdiff.core.ratio_intervals import half_widths, student, variance_power

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
    `own_*`: beta_p, the ratio's denominator [target, probe, latent]
    `drift_*`: drift (core/drift.py) between the first two models; also NaN where it does not exist without
             one of the groups
    """

    nu_low: Ratios
    nu_high: Ratios
    own_low: Float64[Tensor, "target probe latent"]
    own_high: Float64[Tensor, "target probe latent"]
    drift_low: Float64[Tensor, " latent"]
    drift_high: Float64[Tensor, " latent"]


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
    power = _variance_powers(sums, products)
    parts = [
        _slice_intervals(_GroupSums.of(sums, products, part), power, used=used)
        for part in _slices(sums.n_latents)
    ]
    return Intervals(*(torch.cat(bounds, dim=-1) for bounds in zip(*parts, strict=True)))


@dataclass(frozen=True)
class _GroupSums:
    """Betas of some latents over all documents (`whole`) and without each group, and the groups' energy."""

    energy: Float64[Tensor, "group latent"]
    whole: Tensor
    without: Tensor

    @classmethod
    def of(cls, sums: ScalingSums, products: Tensor, part: slice) -> _GroupSums:
        energy, overlap = sums.energy[:, part], sums.overlap[..., part]
        whole = betas(energy.sum(0), overlap.sum(-2), products[..., part])
        rest = energy.sum(0) - energy, overlap.sum(-2, keepdim=True) - overlap
        return cls(energy, whole, betas(*rest, products[..., part]))

    @property
    def fired(self) -> Int[Tensor, " latent"]:
        return (self.energy > 0).sum(dim=0)

    @property
    def residual(self) -> Float64[Tensor, "target probe model group latent"]:
        """Influence of each group on the ratios: `(nu_(-g) - nu) (1 - h_g)`, h_g its share of the energy."""
        share = self.energy / self.energy.sum(0)
        return (ratios(self.without) - ratios(self.whole).unsqueeze(-2)) * (1 - share)


def _variance_powers(
    sums: ScalingSums, products: Float64[Tensor, "probe model latent"]
) -> Float64[Tensor, "target probe model"]:
    """Powers p of the groups' variances (`variance_power`) per ratio, from a sample of latents."""
    step = -(-sums.n_latents // LATENT_CHUNK)
    groups = _GroupSums.of(sums, products, slice(None, None, step))
    usable = (groups.fired >= MIN_GROUPS) & (own_betas(groups.whole) > 0).unsqueeze(2).unsqueeze(-2)
    return variance_power(torch.where(usable, groups.residual, torch.nan), groups.energy)


def _slice_intervals(
    groups: _GroupSums, power: Float64[Tensor, "target probe model"], *, used: int
) -> tuple[Tensor, ...]:
    fired, limit = groups.fired, freedom_by_energy(groups.energy)
    own, own_without = own_betas(groups.whole), own_betas(groups.without)
    own_low, own_high = jackknife(own, own_without, used=used, fired=fired, limit=limit)
    known = (own_low > 0).unsqueeze(2) & (fired >= MIN_GROUPS)
    half = torch.where(known, half_widths(groups.residual, groups.energy, power), torch.nan)
    nu = ratios(groups.whole)
    drifts = drift_of(groups.whole), drift_of(groups.without)
    drift_low, drift_high = jackknife(*drifts, used=used, fired=fired, limit=limit)
    return nu - half, nu + half, own_low, own_high, drift_low, drift_high


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

    A group's weight in the ratio is its share of the energy, so its variance grows with the square where
    documents differ as wholes. Equal groups count in full; NaN if the latent was never active.
    """
    square = energy.square()
    return square.sum(dim=0).square() / square.square().sum(dim=0)


def _slices(n_latents: int) -> list[slice]:
    return [slice(start, min(start + LATENT_CHUNK, n_latents)) for start in range(0, n_latents, LATENT_CHUNK)]
