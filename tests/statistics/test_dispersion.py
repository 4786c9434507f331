"""Dispersion over seeds against hand-worked numbers, scipy, and counts drawn with a known spread."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from crossdiff.statistics.dispersion import (
    Prior,
    RunCounts,
    agreement,
    contrasts,
    dispersion,
    inverse_trigamma,
    power_over_seeds,
    squeeze,
)


def _side(counts: list[list[int]], totals: list[int]) -> RunCounts:
    return RunCounts(np.array(counts, float), np.array(totals, float))


def test_chi_square_by_hand() -> None:
    """8 and 12 of 100: share .1, expected 10 each, binomial variance 9; (4 + 4) / 9."""
    assert _side([[8], [12]], [100, 100]).chi_square() == pytest.approx([8 / 9])
    unequal = _side([[5], [25]], [100, 200])  # expected 10 and 20, variance 9 and 18
    assert unequal.chi_square() == pytest.approx([25 / 9 + 25 / 18])


def test_inverse_trigamma_is_the_inverse() -> None:
    for value in (1e-5, 0.01, 0.5, 2.0, 50.0, 1e4):
        assert special.polygamma(1, inverse_trigamma(value)) == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize(("nu", "phi", "df"), [(6, 0.5, 8.0), (14, 2.0, 20.0), (2, 1.0, 6.0)])
def test_squeeze_recovers_the_f_distribution_that_drew_the_ratios(nu: int, phi: float, df: float) -> None:
    ratios = phi * stats.f.rvs(nu, df, size=200_000, random_state=np.random.default_rng(3))
    found_phi, found_df = squeeze(ratios, nu)
    assert found_phi == pytest.approx(phi, rel=0.03)
    assert found_df == pytest.approx(df, rel=0.06)


def test_ratios_that_vary_less_than_chance_have_one_value() -> None:
    phi, df = squeeze(np.full(20, 0.7), 6)
    assert np.isinf(df)
    assert phi == pytest.approx(0.7 / np.exp(special.digamma(3) - np.log(3)))


def _many(generator: np.random.Generator, *, runs: int = 4, names: int = 20) -> RunCounts:
    counts = generator.poisson(10, size=(runs, names)).astype(float)
    return RunCounts(counts, counts.sum(1) + 30)


def test_phi_lies_between_the_observed_and_the_common_ratio() -> None:
    generator = np.random.default_rng(0)
    sides = _many(generator), _many(generator)
    found = dispersion(sides)
    assert found.prior is not None
    observed = sum(side.chi_square() for side in sides) / 6
    weight = found.prior.df / (found.prior.df + 6)
    np.testing.assert_allclose(found.phi, weight * found.prior.phi + (1 - weight) * observed)
    np.testing.assert_allclose(found.df, found.prior.df + 6)
    assert found.prior.df <= 6 * 20


def test_rare_and_one_sided_names_take_the_common_value_and_lend_nothing() -> None:
    generator = np.random.default_rng(1)
    sides = [_many(generator), _many(generator)]
    before = dispersion(sides)
    extra = ([[0, 1]] * 4, [[9, 0]] * 4)  # none in the reference; four latents in all
    wider = [
        RunCounts(np.hstack([side.counts, np.array(more, float)]), side.totals)
        for side, more in zip(sides, extra, strict=True)
    ]
    after = dispersion(wider)
    assert before.prior == after.prior
    assert after.prior is not None
    np.testing.assert_allclose(after.phi[-2:], after.prior.phi)
    np.testing.assert_allclose(after.df[-2:], after.prior.df)


def test_few_names_share_one_dispersion_of_at_least_one() -> None:
    found = dispersion([_side([[10, 20], [10, 20]], [100, 100])] * 2)
    assert found.phi.tolist() == [1.0, 1.0]
    assert found.df.tolist() == [2.0, 2.0]
    wide = dispersion([_side([[1, 20], [39, 20]], [100, 100])] * 2)  # 2 * 19^2 / 16 = 45.125 of the first
    np.testing.assert_allclose(wide.phi, 45.125 / 2)


def test_a_prior_of_other_names_gives_way_to_a_larger_mean() -> None:
    sides = [_side([[1, 20], [39, 20]], [100, 100])] * 2
    found = dispersion(sides, prior=Prior(0.5, 10.0))
    assert found.prior == Prior(45.125 / 2, 10.0)
    calm = dispersion([_side([[20, 20], [20, 20]], [100, 100])] * 2, prior=Prior(0.5, 10.0))
    assert calm.prior == Prior(0.5, 10.0)


def test_without_two_degrees_of_freedom_nothing_is_measured() -> None:
    one, two = _side([[5]], [50]), _side([[5], [6]], [50, 50])
    assert dispersion([one, two]).spread == "not measured"
    assert dispersion([one, one]).phi.tolist() == [1.0]
    empty = _side([[5], [6], [0]], [50, 50, 0])  # a run without a labelled latent counts for nothing
    assert dispersion([one, empty]).spread == "not measured"


def test_one_measured_side_never_narrows_below_counting() -> None:
    generator = np.random.default_rng(2)
    counts = np.full((4, 20), 10.0)
    several = RunCounts(counts + generator.integers(0, 2, counts.shape), np.full(4, 250.0))
    found = dispersion([RunCounts(counts[:1], np.array([250.0])), several])
    assert found.spread == "one side"
    assert (found.phi == 1).all()


def test_the_contrast_by_hand() -> None:
    """18 of 112 against 19 of 89 in two runs each: log(19.5/89.5 / (18.5/112.5)), Woolf's error by phi."""
    reference, treatment = _side([[9], [9]], [56, 56]), _side([[9], [10]], [44, 45])
    spread = dispersion([reference, treatment])
    found = contrasts(reference, treatment, spread)
    assert found.log_ratio == pytest.approx([np.log(19.5 / 89.5 * 112.5 / 18.5)])
    expected = np.sqrt(1 / 18.5 - 1 / 112.5 + 1 / 19.5 - 1 / 89.5)
    assert found.error == pytest.approx([expected])  # few names: phi = 1
    low, high = found.interval(0.95)
    half = 4.302652729911275 * expected  # Student's t, 2 degrees of freedom
    assert (high - low) / 2 == pytest.approx([half])
    assert found.p_values() == pytest.approx([2 * stats.t.sf(found.log_ratio[0] / expected, 2)])


def test_agreement_counts_pairs_of_runs() -> None:
    reference, treatment = _side([[1], [3]], [10, 10]), _side([[3], [2]], [10, 10])
    assert agreement(reference, treatment).tolist() == [(1 + 1 + 0.5 + 0) / 4]


def test_power_over_seeds_by_hand() -> None:
    """phi 1/2, so many degrees of freedom that t is z: exp(2.8016 sqrt(.5 * 19 * 2 / 1000)) at 5 %."""
    found = power_over_seeds(1000, 1000, 0.5, 1e9)
    rows = {row["share_reference"]: row["rise"] for row in found["visible"]}
    assert rows[0.05] == pytest.approx(np.exp(2.801585 * np.sqrt(0.5 * 19 * 2 / 1000)), rel=1e-4)
    assert "1000 against 1000 latents of all crosscoders" in found["sentence"]


def drawn(generator: np.random.Generator, mean: np.ndarray, phi: float, runs: int) -> np.ndarray:
    """Counts [run name] with the given mean and variance phi * mean."""
    if phi > 1:
        return generator.negative_binomial(mean / (phi - 1), 1 / phi, (runs, len(mean)))
    if phi == 1:
        return generator.poisson(mean, (runs, len(mean)))
    size = mean / (1 - phi)
    whole = np.floor(size + generator.random((runs, len(mean)))).astype(int)
    return generator.binomial(whole, 1 - phi)


@pytest.mark.parametrize("phi", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("runs", [2, 4])
def test_intervals_hold_the_truth_and_nothing_is_called_under_no_change(phi: float, runs: int) -> None:
    generator = np.random.default_rng([runs, int(10 * phi)])
    mean = np.geomspace(3, 18, 30)
    ratio = np.where(np.arange(30) % 3 == 0, 2.0, np.where(np.arange(30) % 3 == 1, 0.5, 1.0))
    share = np.log(mean * ratio / (mean @ ratio + 25)) - np.log(mean / (mean.sum() + 25))
    inside, called = [], []
    for _ in range(60):
        for truth, change, result in ((share, ratio, inside), (np.zeros(30), np.ones(30), called)):
            sides = []
            for means in (mean, mean * change):
                counts = drawn(generator, np.append(means, 25.0), phi, runs).astype(float)
                sides.append(RunCounts(counts[:, :30], counts.sum(1)))
            low, high = contrasts(sides[0], sides[1], dispersion(sides)).interval(0.95)
            result.append(((low <= truth) & (truth <= high)).mean())
    assert 0.93 <= np.mean(inside) <= 0.99
    assert 0.02 <= 1 - np.mean(called) <= 0.07
