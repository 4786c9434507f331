"""The seed null: its runs share everything but the crosscoders; the spread by hand."""

import numpy as np
import pytest

from crossdiff.studies.seed_null import spread
from tests.composed import experiment


def test_every_comparison_has_two_crosscoders_of_its_own_on_shared_harvests() -> None:
    from crossdiff.pipeline.plan import plan

    steps = plan(experiment("experiment=seed_null", "size=ci", "study.n_comparisons=2"))
    stages = [step.stage for step in steps]
    assert stages.count("organism") == stages.count("tokens") == 1
    assert stages.count("harvest") == 2
    trains = [step for step in steps if step.stage == "train"]
    assert sorted(step.inputs.seed for step in trains) == [0, 1, 2, 3]  # type: ignore[attr-defined]
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
