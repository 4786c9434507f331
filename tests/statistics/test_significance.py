"""p-values under no difference, and against independent computations."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from crossdiff.statistics.significance import benjamini_hochberg, fisher_p_value, max_t_p_values

SHARES = np.array([0.2, 0.08, 0.03, 0.12, 0.3, 0.12, 0.07, 0.08])
LEVELS = (0.01, 0.05, 0.1)


@pytest.fixture(scope="module")
def null() -> np.ndarray:
    """max-T p of seven classes [simulation class] when both pairs draw from the same shares."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(1000):
        reference, treatment = (generator.multinomial(total, SHARES)[:-1] for total in (113, 92))
        found.append(max_t_p_values(reference, treatment, totals=(113, 92), draws=599, generator=generator))
    return np.array(found)


def test_the_smallest_max_t_p_is_uniform_under_no_difference(null: np.ndarray) -> None:
    assert stats.kstest(np.nanmin(null, axis=1), "uniform").pvalue > 0.01


@pytest.mark.parametrize("level", LEVELS)
def test_every_class_p_is_valid_under_no_difference(null: np.ndarray, level: float) -> None:
    bound = level + 2 * np.sqrt(level * (1 - level) / len(null))
    assert (np.nan_to_num(null, nan=1.0) <= level).mean(0).max() <= bound
    assert (np.nanmin(null, axis=1) <= level).mean() <= bound


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("share", [0.02, 0.05, 0.2])
def test_fisher_is_valid_under_no_difference(share: float, level: float) -> None:
    """Exact: both binomials summed over every table."""
    treatment = stats.binom.pmf(np.arange(93), 92, share)
    reference = stats.binom.pmf(np.arange(114), 113, share)
    rejected = sum(
        treatment[x] * reference[y]
        for x in np.flatnonzero(treatment > 1e-4)
        for y in np.flatnonzero(reference > 1e-4)
        if fisher_p_value(int(y), 113, int(x), 92) <= level
    )
    assert rejected <= level


def test_max_t_equals_the_enumeration_of_all_relabellings() -> None:
    """Three against three latents in two classes: 20 relabellings, counted by hand-written enumeration."""
    labels = np.array([0, 0, 0, 1, 1, 2])
    reference, treatment = np.bincount(labels[:3], minlength=3), np.bincount(labels[3:], minlength=3)
    found = max_t_p_values(
        reference[:2], treatment[:2], totals=(3, 3), draws=40_000, generator=np.random.default_rng(0)
    )

    def statistic(chosen: tuple[int, ...]) -> np.ndarray:
        counts = np.bincount(labels[list(chosen)], minlength=3)[:2]
        pooled = np.bincount(labels, minlength=3)[:2] / 6
        return np.abs(counts - 3 * pooled) / np.sqrt(3 * pooled * (1 - pooled) * 3 / 5)

    observed = statistic((3, 4, 5))
    every = np.array([statistic(chosen) for chosen in combinations(range(6), 3)])
    expected = (every.max(1)[:, None] >= observed - 1e-9).mean(0)
    assert found == pytest.approx(expected, abs=0.01)


def test_fisher_of_the_published_self_reference_counts() -> None:
    assert fisher_p_value(9, 112, 4, 89) == pytest.approx(stats.fisher_exact([[4, 85], [9, 103]]).pvalue)
    assert np.isnan(fisher_p_value(0, 112, 0, 89))
    assert np.isnan(fisher_p_value(0, 0, 4, 89))


def test_benjamini_hochberg_by_hand_and_around_missing_values() -> None:
    """p = .01, .02, .04 of three: q = .03, .03, .04."""
    found = benjamini_hochberg(np.array([0.02, np.nan, 0.01, 0.04]))
    assert found[[0, 2, 3]] == pytest.approx([0.03, 0.03, 0.04])
    assert np.isnan(found[1])
    assert np.isnan(benjamini_hochberg(np.array([np.nan]))).all()


def test_an_empty_side_has_no_p_value() -> None:
    found = max_t_p_values(
        np.zeros(3, int), np.array([1, 2, 0]), totals=(0, 5), draws=10, generator=np.random.default_rng(0)
    )
    assert np.isnan(found).all()
