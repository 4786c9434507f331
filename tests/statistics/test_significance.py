"""p-values under no difference, and against independent computations."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from crossdiff.statistics.significance import (
    benjamini_hochberg,
    fisher_p_value,
    fisher_power,
    max_t_p_values,
    power_line,
)

ROOT = Path(__file__).parents[2]
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


def enumerated_power(share: float, other: float, n_reference: int, n_treatment: int) -> float:
    """The same from scipy's own Fisher test of every table."""
    total = 0.0
    for x in range(n_reference + 1):
        for y in range(n_treatment + 1):
            table = [[y, n_treatment - y], [x, n_reference - x]]
            if stats.fisher_exact(table).pvalue <= 0.05:
                total += stats.binom.pmf(x, n_reference, share) * stats.binom.pmf(y, n_treatment, other)
    return float(total)


@pytest.mark.parametrize(("share", "other"), [(0.2, 0.5), (0.3, 0.05), (0.05, 0.3), (0.4, 0.0), (0.3, 1.0)])
def test_the_power_is_that_of_an_enumeration_with_scipys_fisher(share: float, other: float) -> None:
    exact = enumerated_power(share, other, 23, 17)
    assert fisher_power(share, other, n_reference=23, n_treatment=17) == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize("sizes", [(113, 92), (300, 250)])
def test_the_power_is_that_of_a_simulation(sizes: tuple[int, int]) -> None:
    n_reference, n_treatment = sizes
    generator = np.random.default_rng(0)
    for share, other in ((0.2, 0.2 * 1.91), (0.2, 0.2 / 3.06), (0.05, 0.05 * 3.51), (0.05, 0.0)):
        drawn = generator.binomial(n_reference, share, 800), generator.binomial(n_treatment, other, 800)
        p_values = [fisher_p_value(int(x), n_reference, int(y), n_treatment) for x, y in zip(*drawn)]  # noqa: B905
        simulated = float(np.mean(np.array(p_values) <= 0.05))
        exact = fisher_power(share, other, n_reference=n_reference, n_treatment=n_treatment)
        assert simulated == pytest.approx(exact, abs=0.045)


def test_the_power_line_of_92_against_113_latents() -> None:
    """Up and down apart, the reference share named; at 5 % no loss is ever found with 80 %."""
    line = power_line(n_reference=113, n_treatment=92)
    large, small = line["visible"]
    assert large["rise"] == pytest.approx(1.90, abs=0.01)
    assert large["fall"] == pytest.approx(3.06, abs=0.01)
    assert small["rise"] == pytest.approx(3.51, abs=0.01)
    assert small["fall"] is None
    assert small["power_of_disappearing"] == pytest.approx(0.50, abs=0.005)
    sentence = line["sentence"]
    assert "20% of the reference's latents a rise to x1.91 and a fall to 1/3.06" in sentence
    assert (
        "5% of the reference's latents a rise to x3.51 and no fall (a disappearance is found with 50%)"
        in sentence
    )


def test_readme_and_docs_have_the_figures_of_the_power_line() -> None:
    for name in ("README.md", "src/crossdiff/docs/report.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert "3.51" in text, name
        assert "5.6-fold" not in text, name


def test_few_latents_can_show_nothing_and_an_empty_pair_neither() -> None:
    (large, _) = power_line(n_reference=3, n_treatment=3)["visible"]
    assert (large["rise"], large["fall"], large["power_of_disappearing"]) == (None, None, 0.0)
    assert "no change can be measured" in power_line(n_reference=0, n_treatment=5)["sentence"]
