"""Intervals of shares and trends over doses, by hand and against scipy."""

import math

import pytest
from scipy.stats import chi2_contingency

from crossdiff.statistics.proportions import trend, wilson


def test_wilson_by_hand() -> None:
    # 0 of 10: 0 to z^2 / (10 + z^2) = 3.8415 / 13.8415
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert all(math.isnan(bound) for bound in wilson(0, 0))


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
