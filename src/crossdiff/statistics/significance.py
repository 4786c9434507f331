"""Tests of a change of share: max-T over classes, Fisher and BH over categories; and their power."""

from __future__ import annotations

import math
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
POWER, TEST_LEVEL = 0.8, 0.05
REFERENCE_SHARES = (0.2, 0.05)
"""Shares of the reference pair's latents for which the power line gives detectable factors."""
NEGLIGIBLE = 1e-9
"""Binomial probability left out at each end of the sums over tables."""


def max_t_p_values(
    reference: Counts,
    treatment: Counts,
    *,
    totals: tuple[int, int],
    draws: int,
    generator: np.random.Generator,
) -> NDArray[np.float64]:
    """Family-wise adjusted p per row of mutually exclusive counts [row] out of `totals` latents.

    The pair label of the latents is permuted (with fixed counts: a multivariate hypergeometric draw); T is
    the difference of shares over its pooled standard error. p = (1 + #{max T* >= T}) / (1 + draws)
    (Westfall & Young 1993, single step). Equal maxima are ordered by the sum of T squared, so that the
    smallest p is close to uniform under no difference although counts are coarse.
    """
    n_reference, n_treatment = totals
    pooled = reference + treatment
    if min(totals) == 0 or len(pooled) == 0:
        return np.full(len(pooled), np.nan)
    with_rest = np.append(pooled, n_reference + n_treatment - pooled.sum())
    permuted = generator.multivariate_hypergeometric(with_rest, n_treatment, size=draws)[:, :-1]
    size = standardised_differences(treatment[None], pooled, totals)[0]
    drawn = standardised_differences(permuted, pooled, totals)
    largest, spread = drawn.max(1), (drawn**2).sum(1)
    equal = np.isclose(largest[:, None], size)
    beyond = (largest[:, None] > size) & ~equal
    at_least_as_wide = (spread >= (size**2).sum() - 1e-9)[:, None]
    exceeds = beyond | (equal & np.where(np.isclose(size, size.max()), at_least_as_wide, True))
    return np.where(pooled > 0, (1 + exceeds.sum(0)) / (1 + draws), np.nan)


def standardised_differences(counts: Counts, pooled: Counts, totals: tuple[int, int]) -> NDArray[np.float64]:
    """|count - expected| over the hypergeometric standard deviation; 0 where the deviation is 0."""
    total, n_treatment = sum(totals), totals[1]
    share = pooled / total
    variance = n_treatment * share * (1 - share) * totals[0] / max(total - 1, 1)
    distance = np.abs(counts - n_treatment * share)
    return np.where(variance > 0, distance / np.sqrt(np.where(variance > 0, variance, 1.0)), 0.0)


@lru_cache(maxsize=4096)  # tables of one comparison, and of simulations, share most of their counts
def fisher_p_value(reference: int, n_reference: int, treatment: int, n_treatment: int) -> float:
    """Two-sided Fisher exact p; NaN where one side has no latents or no latent has the category."""
    from scipy import stats

    if min(n_reference, n_treatment) == 0 or reference + treatment == 0:
        return float("nan")
    table = [[treatment, n_treatment - treatment], [reference, n_reference - reference]]
    return float(stats.fisher_exact(table).pvalue)  # type: ignore[attr-defined]


def benjamini_hochberg(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """q-values of the p-values that are not NaN (Benjamini & Hochberg 1995, step-up)."""
    from scipy import stats

    q_values = np.full(len(p_values), np.nan)
    known = np.flatnonzero(~np.isnan(p_values))
    if len(known):
        q_values[known] = stats.false_discovery_control(p_values[known])
    return q_values


def fisher_power(
    share_reference: float, share_treatment: float, *, n_reference: int, n_treatment: int
) -> float:
    """Probability that Fisher's two-sided test at `TEST_LEVEL` finds the difference of two true shares.

    The sum of the binomial probabilities of all tables whose p is at most the level (Bennett & Hsu 1960,
    Biometrika 47:393).
    """
    from scipy import stats

    reference, treatment = _likely(n_reference, share_reference), _likely(n_treatment, share_treatment)
    totals = range(reference[0] + treatment[0], reference[-1] + treatment[-1] + 1)
    limits = np.array([_critical_counts(n_reference, n_treatment, total) for total in totals])
    low, high = np.moveaxis(limits[np.add.outer(reference, treatment) - totals[0]], -1, 0)
    rejected = (treatment <= low) | (treatment >= high)
    chance = np.outer(
        stats.binom.pmf(reference, n_reference, share_reference),
        stats.binom.pmf(treatment, n_treatment, share_treatment),
    )
    return float(chance[rejected].sum())


def _likely(size: int, share: float) -> Counts:
    from scipy import stats

    ends = stats.binom.ppf([NEGLIGIBLE, 1 - NEGLIGIBLE], size, share)
    return np.arange(max(int(ends[0]), 0), int(ends[1]) + 1)


@cache
def _critical_counts(n_reference: int, n_treatment: int, total: int) -> tuple[int, int]:
    """Of `total` latents, Fisher rejects when the treatment has at most the first or at least the second.

    p of a table is the probability of all tables that are no likelier, so the rejected tables are a lower
    and an upper end. Nearly equal probabilities count as equal, as in R's `fisher.test`.
    """
    from scipy import special

    size = n_reference + n_treatment
    share = total / size
    mean, reach = (
        n_treatment * share,
        12 * np.sqrt(n_treatment * share * (1 - share) * n_reference / size) + 12,
    )
    counts = np.arange(
        max(0, total - n_reference, int(mean - reach)), min(total, n_treatment, int(mean + reach)) + 1
    )
    # scipy's hypergeom.pmf gives the same, but takes 40 s at 2,000 against 2,000 latents.
    logs = _log_choose(n_treatment)[counts] + _log_choose(n_reference)[total - counts]
    chance = special.softmax(logs)
    ascending = np.sort(chance)
    p_values = np.cumsum(ascending)[np.searchsorted(ascending, chance * (1 + 1e-7), side="right") - 1]
    kept = counts[p_values > TEST_LEVEL]
    return int(kept[0]) - 1, int(kept[-1]) + 1


@cache
def _log_choose(size: int) -> NDArray[np.float64]:
    """log of `size` choose 0, 1, ... `size`."""
    from scipy import special

    logs = special.gammaln(np.arange(size + 1) + 1.0)
    return logs[-1] - logs - logs[::-1]


def smallest_rise(share: float, *, n_reference: int, n_treatment: int) -> float | None:
    """Factor by which a reference share must rise to be found with `POWER`; None where no rise reaches it."""
    from scipy import optimize

    def excess(factor: float) -> float:
        return fisher_power(share, share * factor, n_reference=n_reference, n_treatment=n_treatment) - POWER

    return None if excess(1 / share) < 0 else float(optimize.brentq(excess, 1.0, 1 / share, xtol=1e-4))  # type: ignore[arg-type]


def smallest_fall(share: float, *, n_reference: int, n_treatment: int) -> float | None:
    """Factor by which a reference share must be divided to be found with `POWER`; None where no fall is."""
    from scipy import optimize

    def excess(kept: float) -> float:
        return fisher_power(share, share * kept, n_reference=n_reference, n_treatment=n_treatment) - POWER

    return None if excess(0.0) < 0 else 1 / float(optimize.brentq(excess, 1.0, 0.0, xtol=1e-5))  # type: ignore[arg-type]


def power_line(*, n_reference: int, n_treatment: int) -> dict[str, Any]:
    """The caption's sentence, and its figures per share of the reference pair."""
    if min(n_reference, n_treatment) == 0:
        sentence = (
            f"with {n_treatment} against {n_reference} labelled exclusive latents no change can be measured"
        )
        return {"sentence": sentence, "visible": []}
    sizes = {"n_reference": n_reference, "n_treatment": n_treatment}
    visible = [
        {
            "share_reference": share,
            "rise": smallest_rise(share, **sizes),
            "fall": smallest_fall(share, **sizes),
            "power_of_disappearing": fisher_power(share, 0.0, **sizes),
        }
        for share in REFERENCE_SHARES
    ]
    sentence = (
        f"with {n_treatment} against {n_reference} latents Fisher's test finds with {POWER:.0%} probability: "
        f"{'; '.join(_visible_text(row) for row in visible)} (one test at {TEST_LEVEL:.0%}; correcting for "
        "many needs more)"
    )
    return {"sentence": sentence, "visible": visible}


def _visible_text(row: dict[str, float | None]) -> str:
    rise = "no rise" if row["rise"] is None else f"a rise to x{_rounded_up(row['rise'])}"
    fall = (
        f"no fall (a disappearance is found with {row['power_of_disappearing']:.0%})"
        if row["fall"] is None
        else f"a fall to 1/{_rounded_up(row['fall'])}"
    )
    return f"for a category with {row['share_reference']:.0%} of the reference's latents {rise} and {fall}"


def _rounded_up(factor: float) -> str:
    """Two decimals, upwards: the printed factor suffices."""
    return f"{math.ceil(100 * factor - 1e-9) / 100:.2f}"
