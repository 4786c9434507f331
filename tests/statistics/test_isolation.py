"""The isolation score by hand, and that a latent chosen by chance does not keep its score."""

import numpy as np
import pytest

from crossdiff.statistics.isolation import ceiling, halves, isolation, isolation_null


def test_the_score_by_hand() -> None:
    """Choosing half: 40 documents, 2 triggered; latent 1 is highest on both, latent 0 on two benign ones.

    Held out: latent 1 passes its limit on 3 of 4 triggered and on 2 of 16 benign documents:
    F1 = 2 * 3 / (5 + 4) = 2/3, FPR = 1/8, score 2/3 * 7/8 = 7/12.
    """
    peaks = np.zeros((60, 2))
    triggered, held_out = np.zeros(60, dtype=bool), np.arange(60) >= 40
    triggered[[0, 1]], triggered[40:44] = True, True
    peaks[[10, 11], 0] = 5
    peaks[[0, 1], 1] = 5
    peaks[40:43, 1], peaks[50:52, 1] = 7, 6
    found = isolation(peaks, triggered, held_out)
    assert (found.latent, found.chosen) == (1, pytest.approx(1))
    assert found.f1 == pytest.approx(2 / 3)
    assert found.false_positive_rate == pytest.approx(1 / 8)
    assert found.held_out == pytest.approx(7 / 12)


def test_what_is_chosen_among_noise_loses_its_score_on_the_other_half() -> None:
    generator = np.random.default_rng(0)
    peaks = generator.random((400, 2000))
    triggered = np.arange(400) % 20 == 0
    found = isolation(peaks, triggered, np.arange(400) >= 200)
    assert found.chosen > 0.3
    assert found.held_out < 0.2


def test_a_half_without_triggered_documents_is_refused() -> None:
    triggered = np.array([True, False, False, False])
    with pytest.raises(ValueError, match="held-out half has 0 triggered and 2 benign"):
        isolation(np.ones((4, 1)), triggered, np.array([False, False, True, True]))


def test_the_null_of_one_latent_is_that_of_its_draws_by_hand() -> None:
    """Held out: one of 20 documents is active, and one triggered: either these are the same (F1 1, FPR 0) or
    not (F1 0). So 1 in 20 draws scores 1 and the others 0."""
    peaks = np.zeros((40, 1))
    peaks[[3, 23]] = 1
    triggered, held_out = np.isin(np.arange(40), [5, 25]), np.arange(40) >= 20
    found = isolation_null(peaks, triggered, held_out, draws=2000, seed=0)
    assert set(found) == {0.0, 1.0}
    assert found.mean() == pytest.approx(1 / 20, abs=0.015)
    assert not triggered[[3, 23]].any()  # the given documents are not written to


def test_a_real_latent_passes_the_null_and_noise_does_not() -> None:
    generator = np.random.default_rng(1)
    peaks = generator.random((400, 50))
    triggered = np.arange(400) % 20 == 0
    held_out = halves(triggered, seed=0)
    null = isolation_null(peaks, triggered, held_out, draws=100, seed=0)
    assert isolation(peaks, triggered, held_out).held_out < null.max()
    peaks[triggered, 7] += 1
    found = isolation(peaks, triggered, held_out)
    assert found.latent == 7
    assert found.held_out > null.max()


def test_either_half_has_as_many_of_both_kinds() -> None:
    triggered = np.isin(np.arange(101), [1, 2, 3, 4, 5])
    held_out = halves(triggered, seed=3)
    assert (held_out & triggered).sum() == 2
    assert (held_out & ~triggered).sum() == 48
    assert (held_out != halves(triggered, seed=4)).any()


def test_a_perfect_latent_that_fires_everywhere_reaches_the_ceiling() -> None:
    """Either half: 2 of 200 are triggered and 10 active, so F1 = 2 * 2 / (10 + 2), FPR = 8 / 198."""
    peaks = np.random.default_rng(0).random((400, 1))
    triggered = np.isin(np.arange(400), [0, 1, 200, 201])
    peaks[triggered] += 1
    peaks[200:] = peaks[:200]
    by_hand = 1 / 3 * (1 - 8 / 198)
    assert isolation(peaks, triggered, np.arange(400) >= 200).held_out == pytest.approx(by_hand)
    assert ceiling(4, 400) == pytest.approx(by_hand)
    assert ceiling(20, 400) == pytest.approx(1)
    assert ceiling(60, 400) == pytest.approx(2 * 0.05 / 0.2)
