"""95 % intervals of ratios whose document groups have very unequal weights.

A ratio is a weighted mean over groups, and a group's weight is its share h_g of the latent's energy. The
variance of its deviation from the whole grows with its energy C_g as C_g^p: p is 1 where tokens differ on
their own, 2 where documents differ as wholes. p is estimated from all latents together by pseudo-likelihood
(Davidian and Carroll 1987, "Variance function estimation", JASA 82). It gives the share of a group's
deviation that is left in its residual (the whole includes the group), and Satterthwaite's degrees of freedom
(Bell and McCaffrey 2002, "Bias reduction in standard errors for linear regression with multi-stage samples";
here for one weighted mean). The plain jackknife corrects as for p = 2 and is too wide elsewhere.
"""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

POWERS = tuple(1 + step / 10 for step in range(11))
MIN_POOL = 20
"""Least number of latents to estimate p; with fewer p is 2, the widest."""
MIN_FREEDOM = 2.25
"""Least degrees of freedom. Below, one or two groups decide the estimate's error and its standard error
alike, so that both are large together: Student's t covered 98 to 99.6 % there (docs/latent_scaling.md)."""

Energy = Float64[Tensor, "group latent"]
Deviations = Float64[Tensor, "*shape group latent"]


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
