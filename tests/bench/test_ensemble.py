"""The benchmark of intervals over crosscoder seeds: in a small size, and on real counts."""

from __future__ import annotations

import json

import pytest

from experiments.bench.ensemble import COUNTS, main, organism


def test_a_small_run_gives_every_rate() -> None:
    found = main(["n_simulations=10"])
    assert json.loads(json.dumps(found))["rates"].keys() == {"0.5", "1", "2", "mixed"}
    for rates in found["rates"].values():
        assert rates.keys() == {"R=2", "R=3", "R=4", "R=8"}
        assert all(row["coverage"] > 0.85 for row in rates.values())


@pytest.mark.parametrize(
    ("name", "n_right", "n_corrected", "n_within_reach", "least_of_four"),
    [("seed_0", 18, 16, 15, 12), ("seed_1", 12, 9, 11, 7), ("seed_2", 15, 12, 16, 8)],
)
def test_eight_real_crosscoders_per_pair_find_planted_changes_and_nothing_else(
    name: str, n_right: int, n_corrected: int, n_within_reach: int, least_of_four: int
) -> None:
    """The figures of docs/ensembles.md, with room for other draws of subsets."""
    found = organism(COUNTS / f"{name}.csv", seed=1, most_subsets=20)
    assert all(0.03 < null["type_one"] < 0.07 for null in found["null"].values())
    whole = found["changes"]["R=8"]
    assert (whole["right_interval"], whole["wrong_interval"], whole["right_q"]) == (n_right, 0, n_corrected)
    assert whole["within_reach"] == n_within_reach
    assert found["changes"]["R=4"]["right_interval"] > least_of_four
    assert all(row["wrong_interval"] < 0.1 for row in found["changes"].values())


def test_four_crosscoders_per_pair_of_the_other_organisms_call_no_wrong_change() -> None:
    right = {"unequal_totals": 7, "few_changes": 7, "nothing_planted": 0}
    for name, n_right in right.items():
        whole = organism(COUNTS / f"{name}.csv", seed=1, most_subsets=1)["changes"]["R=4"]
        assert (whole["right_interval"], whole["wrong_interval"], whole["unplanted_q"]) == (n_right, 0, 0)
        assert whole["holds_represented"] > 0.83
