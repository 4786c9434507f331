"""95 % intervals over documents, on the scaling sums of document groups.

Tokens of one document are alike, so documents are resampled, in at most 20 hash groups (O(latents) state):
the value without a group shows the group's influence. The ratio is used rather than its logarithm, because
ratios of exclusive latents are around 0 and may be negative.

Betas get the delete-a-group jackknife. Where a latent fires in few documents, or in documents of unequal
length, a few groups have most of the sums and of the variance. Student's t then uses the smaller of two
degrees of freedom: from the groups' deviations, and from their shares of the latent's energy. These intervals
are wide rather than narrow, because a beta's is only compared with 0.

Ratios are printed and compared with limits. A ratio is a weighted mean over groups, and a group's weight is
its share h_g of the latent's energy. The variance of its deviation from the whole grows with its energy C_g
as C_g^p: p is 1 where tokens differ on their own, 2 where documents differ as wholes. p is estimated from
all latents together by pseudo-likelihood (Davidian and Carroll 1987, "Variance function estimation", JASA
82). It gives the share of a group's deviation that is left in its residual (the whole includes the group),
and Satterthwaite's degrees of freedom (Bell and McCaffrey 2002, "Bias reduction in standard errors for
linear regression with multi-stage samples"; here for one weighted mean). The plain jackknife corrects as
for p = 2.

Coverage is measured by `python -m crossdiff.bench coverage` (docs/latent_scaling.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from crossdiff.core.crosscoder import LATENT_CHUNK
from crossdiff.core.drift import drift_of
from crossdiff.core.latent_scaling import ScalingSums, betas, own_betas, ratios

MIN_GROUPS = 5
POWERS = tuple(1 + step / 10 for step in range(11))
MIN_POOL = 20
"""Least number of latents to estimate p; with fewer p is 2, the widest."""
MIN_FREEDOM = 2.25
"""Least degrees of freedom. Below, one or two groups decide the estimate's error and its standard error
alike, so that both are large together: Student's t covered 98 to 99.6 % there (docs/latent_scaling.md)."""

Ratios = Float64[Tensor, "target probe model latent"]
Energy = Float64[Tensor, "group latent"]
Deviations = Float64[Tensor, "*shape group latent"]
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


def intervals(sums: ScalingSums, products: Float64[Tensor, "probe model latent"]) -> Intervals:
    """Intervals of all nus and of the probes' own betas, in slices of latents."""
    used = int((sums.energy.sum(dim=1) > 0).sum())
    power = _variance_powers(sums, products)
    slices = (slice(start, start + LATENT_CHUNK) for start in range(0, sums.n_latents, LATENT_CHUNK))
    parts = [_slice_intervals(_GroupSums.of(sums, products, part), power, used=used) for part in slices]
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


def kept_share(energy: Energy, power: Tensor | float) -> Float64[Tensor, "*shape group latent"]:
    """Share of a group's variance that is left in its residual: `1 - 2 h_g + h_g^2 S / C_g^p`.

    The residual is `e_g - h_g sum e`, with independent `e_g` of variance `C_g^p`, whose sum is S. 1 for
    groups without energy, whose residuals are 0. Taken as `(1 - h_g)^2 + h_g^2 (S - C_g^p) / C_g^p`, whose
    differences are sums over the other groups: of a group with nearly all energy nothing cancels.
    """
    variance = _variances(energy, power)
    total = energy.sum(dim=-2, keepdim=True)
    share, rest = energy / total, _of_others(energy) / total
    kept = rest.square() + share.square() * _of_others(variance) / variance
    return torch.where(energy > 0, kept, 1.0)


def _of_others(values: Deviations) -> Deviations:
    """For every group the sum over all others, from both sides: a large value cancels no small ones."""
    before = values.cumsum(dim=-2).roll(1, dims=-2)
    after = values.flip(-2).cumsum(dim=-2).roll(1, dims=-2).flip(-2)
    first, last = torch.zeros_like(values), torch.zeros_like(values)
    first[..., 1:, :], last[..., :-1, :] = before[..., 1:, :], after[..., :-1, :]
    return first + last


def variance_power(residual: Deviations, energy: Energy) -> Float64[Tensor, " *shape"]:
    """The p of `POWERS` under which the latents' residuals are most likely, each latent with its own scale.

    Latents with NaN, or only residuals of 0, do not count; 2 where fewer than `MIN_POOL` count.
    """
    live = energy > 0
    n = live.sum(dim=0)
    best = torch.full(residual.shape[:-2], torch.inf, dtype=torch.float64, device=energy.device)
    chosen = torch.full_like(best, 2.0)
    for power in POWERS:
        expected = torch.where(live, _variances(energy, power) * kept_share(energy, power), 1.0)
        scale = torch.where(live, residual.square() / expected, 0).sum(dim=-2) / n
        known = scale.isfinite() & (scale > 0)
        logs = torch.where(live, expected.log(), 0).sum(dim=0) + n * scale.log()
        badness = torch.where(known, logs, 0).sum(dim=-1)
        better = (badness < best) & (known.sum(dim=-1) >= MIN_POOL)
        best, chosen = torch.where(better, badness, best), torch.where(better, power, chosen)
    return chosen


def degrees_of_freedom(energy: Energy, power: Float64[Tensor, " *shape"]) -> Float64[Tensor, "*shape latent"]:
    """`(tr B)^2 / tr B^2` of B, the covariance of the residuals over the root of their kept shares.

    `B_gk = (d_g [g = k] - h_g d_k - d_g h_k + h_g h_k S) / sqrt(kept_g kept_k)` with `d_g = C_g^p`, summed in
    closed form; equal groups give G - 1.
    """
    power = power[..., None, None]
    share = energy / energy.sum(dim=-2, keepdim=True)
    kept = kept_share(energy, power)
    variance = _variances(energy, power)
    total = variance.sum(dim=-2)
    hh, hd, dd = ((a * b / kept).sum(dim=-2) for a, b in _pairs(share.expand_as(kept), variance))
    outer = 2 * hh * dd + 2 * hd.square() - 4 * total * hd * hh + (total * hh).square()
    diagonal = ((2 * share * variance - total.unsqueeze(-2) * share.square()) / kept).square().sum(dim=-2)
    return total.square() / (variance.square().sum(dim=-2) + outer - diagonal)


def half_widths(
    residual: Deviations, energy: Energy, power: Float64[Tensor, " *shape"]
) -> Float64[Tensor, "*shape latent"]:
    """`t(df) sqrt(sum_g r_g^2 / kept_g)`, with at least `MIN_FREEDOM` degrees of freedom."""
    square = (residual.square() / kept_share(energy, power[..., None, None])).sum(dim=-2)
    return student(degrees_of_freedom(energy, power).clamp(min=MIN_FREEDOM)) * square.sqrt()


def student(freedom: Float64[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
    """Two-sided 95 % quantile of Student's t."""
    from scipy.special import stdtrit

    return torch.from_numpy(stdtrit(freedom.cpu().numpy(), 0.975)).to(freedom.device)


def _variances(energy: Energy, power: Tensor | float) -> Float64[Tensor, "*shape group latent"]:
    """C^p up to a factor per latent; 0 without energy."""
    return (energy / energy.sum(dim=-2, keepdim=True)) ** power


def _pairs(share: Tensor, variance: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
    return (share, share), (share, variance), (variance, variance)
