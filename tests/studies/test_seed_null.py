"""The seed null: its runs share everything but the crosscoders; the spread by hand."""

import numpy as np
import pytest

from crossdiff.studies.seed_null import SeedNull, _answer, interval_calls, spread
from tests.composed import experiment


def test_every_comparison_has_two_crosscoders_of_its_own_on_shared_harvests() -> None:
    from crossdiff.pipeline.plan import plan

    steps = plan(experiment("experiment=seed_null", "size=ci", "study.n_comparisons=2"))
    stages = [step.stage for step in steps]
    assert stages.count("organism") == stages.count("tokens") == 1
    assert stages.count("harvest") == 2
    trains = [step for step in steps if step.stage == "train"]
    assert sorted(step.inputs.seed for step in trains) == [0, 1, 2, 3]  # type: ignore[attr-defined]
    alike = [step for step in steps if step.stage == "consistency"]
    assert len(alike) == 2
    assert {step.key for step in trains} == {
        step.parents[role].key for step in alike for role in ("train_a", "train_b")
    }
    compared = [step for step in steps if step.stage == "compare"]
    assert len(compared) == 2
    # nothing was planted between a pair and itself
    assert all("organism" not in step.parents and "match" in step.parents for step in compared)


def test_the_spread_is_about_no_change() -> None:
    logs = np.log([[2.0, 0.5], [1.0, np.nan]])
    found = spread(logs)
    assert found["n_changes"] == 3
    assert found["log_deviation"] == pytest.approx(np.log(2) * np.sqrt(2 / 3))
    assert found["change_low"] == pytest.approx(-0.5, abs=0.03)
    assert spread(np.full((1, 2), np.nan))["n_changes"] == 0


def test_only_categories_that_are_tested_count_as_calls(make_run) -> None:
    outside = make_run("outside", {"other": 50}, {"uninterpretable": 50})
    assert interval_calls([outside.deltas()]) == {"n_intervals": 0, "n_clear": 0, "n_significant": 0}
    assert "nothing to show" in SeedNull().analyse({"a": outside}, {}).answer


def test_a_category_that_one_seed_alone_has_is_a_call(make_run) -> None:
    run = make_run("run", {"other": 50}, {"mathematics": 30, "other": 20})
    assert interval_calls([run.deltas()]) == {"n_intervals": 1, "n_clear": 1, "n_significant": 1}
    numbers = SeedNull().analyse({"a": run}, {}).numbers
    assert numbers["by_run"] == {"a": {"pairs": ["pt_it", "pt_simpo"], "null": numbers["null"]}}


def test_small_changes_are_told_without_a_minus_zero() -> None:
    numbers = {"n_changes": 3, "n_clear": 0, "n_intervals": 5, "n_significant": 0}
    answer = _answer({**numbers, "change_low": -0.001, "change_high": 0.002})
    assert answer.endswith("95 % of the changes lie between 0% and 0%.")
