"""Pooled recovery of planted changes, on counts that can be worked out by hand."""

import numpy as np
import pytest

from crossdiff.statistics.pooling import PlantedRun, pooled_recovery, rank_correlations, spearman


def run(reference: list[int], treatment: list[int]) -> PlantedRun:
    return PlantedRun(
        planted=np.array([3.0, 0.0, -0.75]),
        group=np.array(["gain", "keep", "loss"]),
        reference=np.array(reference),
        treatment=np.array(treatment),
        rest_reference=100 - sum(reference),
        rest_treatment=100 - sum(treatment),
    )


def test_group_changes_are_ratios_of_pooled_shares() -> None:
    found = pooled_recovery([run([10, 20, 40], [40, 20, 10]), run([10, 20, 40], [40, 20, 10])], draws=200)
    # (80.5 / 200) / (20.5 / 200) - 1, with the half that is added to every count
    assert found["groups"]["gain"]["change"] == pytest.approx(80.5 / 20.5 - 1)
    assert found["groups"]["keep"]["change"] == pytest.approx(0)
    assert (
        found["groups"]["loss"]["minus_keep"]["ci_high"] < 0 < found["groups"]["gain"]["minus_keep"]["ci_low"]
    )
    assert found["spearman"]["rho"] == pytest.approx(1)


def test_no_difference_gives_intervals_that_hold_zero() -> None:
    found = pooled_recovery([run([20, 20, 20], [20, 20, 20])], draws=500)
    for name in ("gain", "loss"):
        difference = found["groups"][name]["minus_keep"]
        assert difference["ci_low"] < 0 < difference["ci_high"]


def test_spearman_gives_ties_their_average_rank() -> None:
    # ranks 1.5 1.5 3 against 1 2 3: covariance 1.5 / 2, deviations sqrt(1.5 / 2) and 1
    assert spearman(np.array([0.0, 0.0, 1.0]), np.array([1.0, 2.0, 3.0])) == pytest.approx(np.sqrt(0.75))


def test_rank_correlations_are_spearmans_of_every_row() -> None:
    left, right = np.random.default_rng(0).integers(4, size=(2, 50, 9)).astype(float)
    right[0] = 1.0
    found = rank_correlations(left, right)
    assert np.isnan(found[0])
    assert found[1:] == pytest.approx([spearman(*pair) for pair in zip(left[1:], right[1:], strict=True)])
