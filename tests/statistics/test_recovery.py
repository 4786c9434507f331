"""Recovered against planted change."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from crossdiff.statistics.deltas import Labels
from crossdiff.statistics.recovery import against_represented, label_check, recovery

CHANGES = {"gain": (0.8, 0.9, 1.0), "loss": (-0.8, -0.9, -1.0), "keep": (0.0, 0.1, -0.1)}
PLANTED = [
    {
        "name": f"c{i}",
        "group": group,
        "share_reference": 1 / 9,
        "share_treatment": (1 + change) / 9,
        "change": change,
    }
    for i, (group, change) in enumerate((g, change) for g, changes in CHANGES.items() for change in changes)
]


def _side(counts: list[int]) -> Labels:
    return Labels([f"c{i}" for i, count in enumerate(counts) for _ in range(count)])


def test_the_rank_correlation_is_scipys_and_its_interval_holds_the_truth() -> None:
    reference, treatment = [10, 10, 10, 20, 20, 20, 10, 10, 10], [19, 18, 22, 5, 3, 1, 12, 9, 11]
    found = recovery(PLANTED, _side(reference), _side(treatment), draws=500, seed=0)
    changes = [entry["change"] for entry in found["recovered"]]
    ranks = [np.argsort(np.argsort(values)) for values in (changes, [entry["change"] for entry in PLANTED])]
    assert found["spearman"]["rho"] == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert 0 < found["spearman"]["ci_low"] <= found["spearman"]["rho"] <= found["spearman"]["ci_high"]
    assert found["spearman"]["n_categories"] == 9


def test_the_interval_of_small_counts_holds_the_correlation() -> None:
    """Resampled latents would give 30 planted categories of 1 to 9 latents an interval below rho itself."""
    planted = [{"name": f"c{i}", "group": "gain", "change": float(i % 5)} for i in range(30)]
    treatment = [3 + (i % 5) + (i % 2) for i in range(30)]
    found = recovery(planted, _side([3] * 30), _side(treatment), draws=1000, seed=0)["spearman"]
    assert found["rho"] > 0.9
    assert found["ci_low"] < found["rho"] < found["ci_high"] <= 1


def test_groups_pool_counts_and_are_held_against_keep() -> None:
    found = recovery(PLANTED, _side([10] * 9), _side([20, 20, 20, 2, 2, 2, 10, 10, 10]), draws=1000, seed=0)[
        "groups"
    ]
    assert found["gain"]["change"] == pytest.approx(60 / 96 / (30 / 90) - 1)
    assert found["gain"]["planted_change"] == pytest.approx(0.9)
    assert found["keep"]["minus_keep"] is None
    assert found["gain"]["minus_keep"]["ci_low"] > 0 > found["loss"]["minus_keep"]["ci_high"]


def test_no_difference_gives_intervals_that_hold_zero() -> None:
    found = recovery(PLANTED, _side([10] * 9), _side([10] * 9), draws=1000, seed=0)["groups"]
    for group in ("gain", "loss"):
        assert found[group]["minus_keep"]["ci_low"] < 0 < found[group]["minus_keep"]["ci_high"]


def test_a_category_that_nobody_has_is_null_and_a_new_one_gets_half_a_latent() -> None:
    found = recovery(PLANTED, _side([0, 0, 10]), _side([0, 4, 10]), draws=100, seed=0)["recovered"]
    assert found[0]["change"] is None
    assert found[1]["added_half"]
    assert found[1]["change"] == pytest.approx((4.5 / 14.5) / (0.5 / 10.5) - 1)
    assert found[2]["change"] == pytest.approx((10 / 14) / 1 - 1)


def test_a_constant_truth_has_no_rank_correlation() -> None:
    flat = [entry | {"change": 0.0} for entry in PLANTED]
    assert recovery(flat, _side([5] * 9), _side([5] * 9), draws=50, seed=0)["spearman"]["rho"] is None


def test_intervals_are_held_against_what_the_models_represent() -> None:
    """Of three intervals two hold the represented change, one of the two clear ones lies on its side."""
    deltas = pd.DataFrame(
        {
            "level": ["class", "category", "category", "category"],
            "name": ["c0", "c0", "c1", "c2"],
            "ci_low": [0.0, 0.1, -0.5, 0.2],
            "ci_high": [0.0, 0.9, 0.5, 0.8],
            "count_reference": [0, 10, 10, 10],
            "count_treatment": [0, 15, 10, 14],
            "total_reference": [60] * 4,
            "total_treatment": [60] * 4,
        }
    )
    represented = [
        {"name": name, "group": "keep", "change": change}
        for name, change in (("c0", 0.5), ("c1", 0.0), ("c2", -0.1), ("c3", 0.3), ("c1", None))
    ]
    found = against_represented(represented, deltas, draws=50, seed=0)["against_represented"]
    assert (found["n_held"], found["n_with_interval"], found["n_without_change"]) == (2, 3, 2)
    assert (found["n_clear_right"], found["n_clear"]) == (1, 2)
    assert found["spearman"]["rho"] == pytest.approx(0.5)


def row(latent: int, category: str | None, role: str = "exclusive_tuned", pair: str = "p") -> dict:
    return {"pair": pair, "latent": latent, "role": role, "category": category}


def table(documents: dict[int, str]) -> pd.DataFrame:
    rows = [
        {"latent": latent, "document_id": name, "subset": "explain", "source": "top"}
        for latent, names in documents.items()
        for name in names
    ]
    return pd.DataFrame([*rows, {"latent": 1, "document_id": "z", "subset": "score", "source": "top"}])


def test_labelled_and_right_by_hand() -> None:
    """Latent 1: aab -> right; 2: ab is a tie -> right; 3: bbb said a -> wrong; 4 and 5 have no category."""
    documents = {"a": "x", "b": "y", "z": "y"}
    examples = {"p": table({1: "aab", 2: "ab", 3: "bbb", 4: "aaa", 5: "a", 6: "a"})}
    rows = [row(1, "x"), row(2, "y"), row(3, "x"), row(4, "other"), row(5, None)]
    rows += [row(6, "x", role="exclusive_base"), row(7, "x", role="control_shared")]
    found = label_check(rows, examples, documents)
    assert found["exclusive_tuned"] == found["p"]
    assert found["p"] == {
        "n": 5, "n_labelled": 3, "n_right": 2, "share_labelled": 3 / 5, "share_right": 2 / 3
    }  # fmt: skip
    assert found["exclusive"]["n"] == 6
    assert found["exclusive"]["n_right"] == 3
    assert "drifted" not in found
    again = label_check(
        [*rows, row(1, "x", role="drifted"), row(3, "x", role="drifted")], examples, documents
    )
    assert (again["drifted"]["n"], again["drifted"]["n_right"]) == (2, 1)
    assert (again["control_shared"]["n"], again["control_shared"]["n_right"]) == (1, 0)
    assert again["exclusive"] == found["exclusive"]


def test_without_latents_shares_are_unknown() -> None:
    found = label_check([], {"p": table({})}, {})
    assert found["exclusive"] == {
        "n": 0, "n_labelled": 0, "n_right": 0, "share_labelled": None, "share_right": None
    }  # fmt: skip
