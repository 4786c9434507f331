"""Intervals of a ratio of shares: published examples, and coverage at the study's sample sizes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from scipy.stats import chi2_contingency

from crossdiff.statistics.deltas import SMALL_SHARE
from crossdiff.statistics.intervals import (
    bootstrap_interval,
    log_ratio,
    score_interval,
    trend,
    wilson,
    wilson_rate,
)

N_TREATMENT, N_REFERENCE = 92, 113


def test_koopmans_published_example() -> None:
    """Koopman 1984, Biometrics 40:513: 36 of 40 against 16 of 80 gives 2.94 to 7.15."""
    assert score_interval(36, 40, 16, 80) == pytest.approx((2.94, 7.15), abs=0.005)


def test_the_limits_are_where_the_chi_square_test_turns() -> None:
    """At a limit the constrained maximum-likelihood fit has a chi-square of 3.84 (found by grid)."""
    low, _ = score_interval(7, 50, 12, 60)
    share = np.linspace(1e-4, 1 - 1e-4, 200_001)
    fitted = share * low
    log_likelihood = stats.binom.logpmf(7, 50, fitted) + stats.binom.logpmf(12, 60, share)
    best = share[np.argmax(log_likelihood)]
    pearson = (7 - 50 * best * low) ** 2 / (50 * best * low * (1 - best * low))
    pearson += (12 - 60 * best) ** 2 / (60 * best * (1 - best))
    assert pearson == pytest.approx(stats.chi2.ppf(0.95, 1), rel=1e-3)


def test_swapping_the_sides_inverts_the_interval() -> None:
    low, high = score_interval(5, 92, 9, 113)
    assert score_interval(9, 113, 5, 92) == pytest.approx((1 / high, 1 / low))


@pytest.mark.parametrize(
    ("counts", "low", "high"), [((0, 89, 3, 112), 0.0, 1.58), ((3, 89, 0, 112), 0.998, np.inf)]
)
def test_a_zero_count_opens_one_end(counts, low, high) -> None:
    assert score_interval(*counts) == pytest.approx((low, high), abs=0.01)


@pytest.mark.parametrize("counts", [(1, 1, 1, 1), (89, 89, 112, 112), (89, 89, 12, 112), (0, 92, 113, 113)])
def test_extreme_counts_have_an_ordered_interval_around_the_ratio(counts) -> None:
    low, high = score_interval(*counts)
    treatment, n_treatment, reference, n_reference = counts
    assert low <= (treatment / n_treatment) / (reference / n_reference) <= high
    assert low < high


def test_two_zero_counts_say_nothing() -> None:
    assert score_interval(0, 92, 0, 113) == (0.0, np.inf)


def _coverage(share: float, ratio: float) -> float:
    """Exact over both binomials, with the rule that the delta table uses."""
    generator = np.random.default_rng(0)
    treatment = stats.binom.pmf(np.arange(N_TREATMENT + 1), N_TREATMENT, share * ratio)
    reference = stats.binom.pmf(np.arange(N_REFERENCE + 1), N_REFERENCE, share)
    covered = total = 0.0
    for x in np.flatnonzero(treatment > 1e-3):
        for y in np.flatnonzero(reference > 1e-3):
            weight = treatment[x] * reference[y]
            if min(x / N_TREATMENT, y / N_REFERENCE) < SMALL_SHARE:
                low, high = score_interval(x, N_TREATMENT, y, N_REFERENCE)
            else:
                drawn = [
                    generator.binomial(size, count / size, 1000)
                    for count, size in ((x, N_TREATMENT), (y, N_REFERENCE))
                ]
                ratios = log_ratio(*drawn, n_treatment=N_TREATMENT, n_reference=N_REFERENCE)
                low, high = bootstrap_interval(ratios) + 1
            total += weight
            covered += weight * (low <= ratio <= high)
    return covered / total


@pytest.mark.parametrize(
    ("share", "ratio"), [(0.05, 1), (0.05, 2), (0.1, 1), (0.1, 0.5), (0.2, 1.5), (0.3, 0.6)]
)
def test_coverage_is_93_to_97_percent_from_a_share_of_5_percent(share: float, ratio: float) -> None:
    assert 0.93 <= _coverage(share, ratio) <= 0.97


@pytest.mark.parametrize(("share", "ratio"), [(0.02, 1), (0.03, 1), (0.03, 1.5)])
def test_coverage_below_5_percent_is_at_least_93_percent(share: float, ratio: float) -> None:
    assert _coverage(share, ratio) >= 0.93


def test_wilson_by_hand() -> None:
    # 0 of 10: 0 to z^2 / (10 + z^2) = 3.8415 / 13.8415
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert all(math.isnan(bound) for bound in wilson(0, 0))
    assert wilson_rate(0, 10, per=1000) == pytest.approx({"value": 0, "low": 0, "high": 277.5}, abs=0.1)
    assert wilson_rate(0, 0) is None


def test_the_trend_by_hand() -> None:
    # p = 1/2, T = 0 (1 - 2) + 1 (2 - 2) + 2 (3 - 2) = 2, V = 1/4 (4 + 16 - 12^2 / 12) = 2
    stratum = ([0, 1, 2], [1, 2, 3], [4, 4, 4])
    assert trend([stratum]) == pytest.approx(2 / math.sqrt(2))
    assert trend([stratum, stratum]) == pytest.approx(4 / math.sqrt(4))
    assert trend([([0, 1, 2], [3, 2, 1], [4, 4, 4])]) == pytest.approx(-2 / math.sqrt(2))


def test_two_doses_are_pearsons_test_of_a_table() -> None:
    found = trend([([0, 1], [5, 14], [20, 25])])
    assert found**2 == pytest.approx(chi2_contingency([[5, 15], [14, 11]], correction=False).statistic)


def test_the_unit_of_the_dose_does_not_matter() -> None:
    counts = ([3, 5, 9], [20, 20, 20])
    assert trend([([0, 0.5, 1], *counts)]) == pytest.approx(trend([([0, 50, 100], *counts)]))


def test_without_any_showing_there_is_no_trend_to_see() -> None:
    assert math.isnan(trend([([0, 1], [0, 0], [8, 8])]))
    assert math.isnan(trend([([0, 1], [8, 8], [8, 8])]))
    assert math.isnan(trend([]))
