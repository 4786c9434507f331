"""Spread of counts over the crosscoders of a pair, and the error of a ratio of shares that follows.

Crosscoders of a pair differ in their seed alone. Their counts of a category vary less or more than those of
independent latents; `dispersion` estimates by how much, and `contrasts` turns it into errors of log ratios.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from crossdiff.statistics.significance import POWER, REFERENCE_SHARES, TEST_LEVEL

MIN_POOLED = 5
"""Fewest latents of a name, over all crosscoders, from which its spread is estimated."""
MIN_NAMES = 10
"""Fewest usable names for a distribution of dispersions; fewer share one dispersion, of at least 1."""
SMALLEST_RATIO = 1e-3
"""An observed spread of 0 counts as this share of the median one: the method uses logarithms."""
LARGEST_DF = 1e6
Spread = Literal["measured", "one side", "not measured"]
"""Pairs whose spread over seeds is measured: both, one (then phi is at least 1), or none."""
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class RunCounts:
    """Counts [run, name] of one pair's crosscoders, and every run's labelled latents, `other` included."""

    counts: Numbers
    totals: Numbers

    @property
    def pooled(self) -> Numbers:
        """Latents per name over all runs."""
        return self.counts.sum(0)

    @property
    def total(self) -> float:
        """Labelled latents over all runs."""
        return float(self.totals.sum())

    @property
    def free(self) -> int:
        """Degrees of freedom of the spread: runs with a labelled latent, less one."""
        return max(int((self.totals > 0).sum()) - 1, 0)

    def chi_square(self) -> Numbers:
        """Pearson's sum over runs of (count - expected)^2 / (expected (1 - share)), per name.

        The divisor is a binomial count's variance, since `contrasts` has the error of a binomial share.
        Poisson's (`expected` alone) would count 1 - share twice: large shares, as those of classes, would
        get intervals that are too narrow.
        """
        share = self.pooled / max(self.total, 1)
        expected = np.outer(self.totals, share)
        variance = expected * (1 - share)
        squares = (self.counts - expected) ** 2
        return np.divide(squares, variance, out=np.zeros_like(squares), where=variance > 0).sum(0)


@dataclass(frozen=True)
class Prior:
    """The names' common dispersion `phi` and its degrees of freedom."""

    phi: float
    df: float


@dataclass(frozen=True)
class Dispersion:
    """phi and its degrees of freedom per name; `prior` is None where one phi serves all names."""

    phi: Numbers
    df: Numbers
    prior: Prior | None
    spread: Spread


def spread_of(sides: Sequence[RunCounts]) -> Spread:
    """Sides whose spread is measured; needs two degrees of freedom and latents on both sides."""
    if sum(side.free for side in sides) < 2 or not all(side.total for side in sides):
        return "not measured"
    return "measured" if all(side.free for side in sides) else "one side"


def dispersion(
    sides: Sequence[RunCounts], *, prior: Prior | None = None, learn_from: NDArray[np.bool_] | None = None
) -> Dispersion:
    """Variance over seeds relative to counting, per name, squeezed towards the names' common value.

    f = chi-square over both pairs / nu with nu = runs - 2; phi = (d0 phi0 + nu f) / (d0 + nu) with nu + d0
    degrees of freedom (Smyth 2004, Stat. Appl. Genet. Mol. Biol. 3:3, equation 3, as in limma). Names with
    fewer than `MIN_POOLED` latents or none on one side take phi0. phi0 and d0 come from the usable names in
    `learn_from` (all unless given), d0 at most nu times their number. A `prior` of other names replaces
    them, with these names' mean f for its phi0 where that is larger.
    """
    nu, spread = sum(side.free for side in sides), spread_of(sides)
    pooled = np.array([side.pooled for side in sides])
    n_names = pooled.shape[1]
    if spread == "not measured":
        return Dispersion(np.ones(n_names), np.full(n_names, np.inf), None, spread)
    ratio = np.sum([side.chi_square() for side in sides], axis=0) / nu
    usable = (pooled.sum(0) >= MIN_POOLED) & (pooled > 0).all(0)
    learnt = usable if learn_from is None else usable & learn_from
    if prior is None and learnt.sum() < MIN_NAMES:
        common = max(float(ratio[learnt].mean()) if learnt.any() else 1.0, 1.0)
        return Dispersion(np.full(n_names, common), np.full(n_names, float(nu)), None, spread)
    if prior is None:
        prior = _prior(ratio[learnt], nu)
    elif usable.any():  # few names, so their mean only ever widens
        prior = Prior(max(prior.phi, float(ratio[usable].mean())), prior.df)
    phi = np.where(usable, (prior.df * prior.phi + nu * ratio) / (prior.df + nu), prior.phi)
    df = np.where(usable, prior.df + nu, prior.df)
    return Dispersion(phi if spread == "measured" else np.maximum(phi, 1), df, prior, spread)


def _prior(ratio: Numbers, nu: int) -> Prior:
    phi, df = squeeze(ratio, nu)
    return Prior(phi, min(df, float(nu * len(ratio))))


def squeeze(ratio: Numbers, nu: float) -> tuple[float, float]:
    """phi0 and d0 of ratios that follow phi0 F(nu, d0), by the moments of their logarithms.

    E log f = log phi0 + psi(nu/2) - log(nu/2) - psi(d0/2) + log(d0/2) and Var log f = psi'(nu/2) + psi'(d0/2)
    (Smyth 2004, section 6.2). d0 is inf where the ratios vary no more than chance.
    """
    floored = np.maximum(ratio, SMALLEST_RATIO * max(float(np.median(ratio)), 1e-8))
    logs = np.log(floored) - special.digamma(nu / 2) + np.log(nu / 2)
    excess = logs.var(ddof=1) - special.polygamma(1, nu / 2)
    if excess <= special.polygamma(1, LARGEST_DF):
        return float(np.exp(logs.mean())), np.inf
    half = inverse_trigamma(float(excess))
    return float(np.exp(logs.mean() + special.digamma(half) - np.log(half))), 2 * half


def inverse_trigamma(value: float) -> float:
    """The x > 0 with psi'(x) = value; psi' falls from infinity to 0, between 1/x and 1/x + 1/x^2."""
    low, high = 1 / value, 0.5 / value + np.sqrt(0.25 / value**2 + 1 / value)
    root = optimize.brentq(lambda x: special.polygamma(1, x) - value, low / 2, 2 * high, xtol=1e-12)
    return float(root)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Contrasts:
    """log ratio of pooled shares per name (1/2 added), its error, and Student's degrees of freedom."""

    log_ratio: Numbers
    error: Numbers
    df: Numbers

    def interval(self, level: float) -> tuple[Numbers, Numbers]:
        """m -+ t((1 + level) / 2; df) e."""
        half = special.stdtrit(np.minimum(self.df, LARGEST_DF), (1 + level) / 2) * self.error
        return self.log_ratio - half, self.log_ratio + half

    def p_values(self) -> Numbers:
        """Two-sided, of no change; 1 for a name that holds all latents of both pairs."""
        size = np.divide(
            np.abs(self.log_ratio), self.error, out=np.zeros_like(self.error), where=self.error > 0
        )
        return 2 * stats.t.sf(size, np.minimum(self.df, LARGEST_DF))


def contrasts(reference: RunCounts, treatment: RunCounts, spread: Dispersion) -> Contrasts:
    """m = log of (S_t + 1/2) / (N_t + 1/2) over (S_r + 1/2) / (N_r + 1/2), and its error.

    e^2 = phi * sum over both pairs of 1 / (S + 1/2) - 1 / (N + 1/2). S counts
    a name's latents over all runs of a pair and N all labelled ones; 1/2 as in Walter (1975, Biometrika
    62:371). phi multiplies the variance of counting (quasi-likelihood: McCullagh & Nelder 1989, section 4.5).
    """
    logs, variance = [], np.zeros(len(spread.phi))
    for side in (reference, treatment):
        count, total = side.pooled + 0.5, side.total + 0.5
        logs.append(np.log(count / total))
        variance = variance + (1 / count - 1 / total)
    return Contrasts(logs[1] - logs[0], np.sqrt(spread.phi * variance), spread.df)


def agreement(reference: RunCounts, treatment: RunCounts) -> Numbers:
    """Share of all (reference run, treatment run) pairs with a larger share in the treatment; ties half."""
    shares = [
        side.counts[side.totals > 0] / side.totals[side.totals > 0, None] for side in (reference, treatment)
    ]
    if not all(len(side) for side in shares):
        return np.full(reference.counts.shape[1], np.nan)
    differences = shares[1][None] - shares[0][:, None]
    return ((differences > 0) + 0.5 * (differences == 0)).mean((0, 1))


def power_over_seeds(n_reference: int, n_treatment: int, phi: float, df: float) -> dict[str, Any]:
    """The caption's sentence, and the smallest detectable factor per share of the reference pair.

    log factor = (t_level + t_power) sqrt(phi (1 - share)/share (1/n_reference + 1/n_treatment)): the error
    of `contrasts` with both shares at `share`, one test, Student's t with `df` degrees of freedom.
    """
    visible, sizes = [], 1 / n_reference + 1 / n_treatment
    for share in REFERENCE_SHARES:
        error = np.sqrt(phi * (1 - share) / share * sizes)
        quantiles = special.stdtrit(min(df, LARGEST_DF), [1 - TEST_LEVEL / 2, POWER]).sum()
        factor = float(np.exp(quantiles * error))
        visible.append({"share_reference": share, "rise": factor, "fall": factor})
    parts = " and ".join(
        f"x{row['rise']:.2f} or 1/{row['rise']:.2f} at a share of {row['share_reference']:.0%}"
        for row in visible
    )
    sentence = (
        f"with {n_treatment} against {n_reference} latents of all crosscoders the smallest change seen with "
        f"{POWER:.0%} probability is {parts} (one test at {TEST_LEVEL:.0%}; correcting for many needs more)"
    )
    return {"sentence": sentence, "visible": visible}
