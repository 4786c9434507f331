"""The self-diff null: its plan, and its rate from the records of its seeds."""

from pathlib import Path

import pytest

from crossdiff.io.tables import write_json
from crossdiff.studies.self_diff import SelfDiff
from tests.composed import experiment


def record(folder: Path, *, tuned: int, base: int, alive: int) -> Path:
    folder.mkdir()
    row = {
        "n_exclusive_tuned": tuned,
        "n_exclusive_base": base,
        "n_alive": alive,
        "n_undecided": 3,
        "seed": 0,
    }
    write_json({**row, "per_1000_alive": 1.0, "fve_base": 0.9}, folder / "self_diff.json")
    return folder


def test_the_rate_pools_both_sides_of_all_seeds(tmp_path: Path) -> None:
    extras = {
        "seed_0": record(tmp_path / "a", tuned=1, base=0, alive=1000),
        "seed_1": record(tmp_path / "b", tuned=0, base=2, alive=500),
    }
    found = SelfDiff(seeds=(0, 1)).analyse({}, extras)
    assert found.numbers["per_1000"] == pytest.approx(2.0)
    # exact Poisson interval of 3: 0.6187 to 8.7673 (Garwood)
    assert found.numbers["low"] == pytest.approx(0.6187 / 1.5, abs=1e-3)
    assert found.numbers["high"] == pytest.approx(8.7673 / 1.5, abs=1e-3)
    assert "3 of 1,500" in found.answer
    assert "above" in found.answer


def test_a_sweep_of_noise_answers_for_each_and_shows_the_worst(tmp_path: Path) -> None:
    from crossdiff.pipeline.plan import plan

    study = SelfDiff(seeds=(0, 1), noise=(0.01, 0.3))
    extras = {
        f"{n}": record(tmp_path / f"{n}", tuned=tuned, base=0, alive=1000)
        for n, tuned in enumerate((0, 0, 4, 2))
    }
    found = study.analyse({}, extras)
    assert found.numbers["by_noise"]["0.01"]["per_1000"] == 0
    assert found.numbers["by_noise"]["0.3"]["per_1000"] == found.numbers["per_1000"] == 3
    assert "at a noise of 0.01 0 of 2,000" in found.answer
    asked = experiment("experiment=self_diff", "size=ci", "study.noise=[0.01,0.3]")
    steps = [step for step in plan(asked) if step.stage == "self_diff"]
    assert [step.inputs.noise for step in steps] == [0.01, 0.3]
    one = [step for step in plan(experiment("experiment=self_diff", "size=ci")) if step.stage == "self_diff"]
    assert one[0].key == steps[0].key


def test_nothing_alive_is_said(tmp_path: Path) -> None:
    found = SelfDiff(seeds=(0,)).analyse({}, {"seed_0": record(tmp_path / "a", tuned=0, base=0, alive=0)})
    assert "says nothing" in found.answer
    assert found.notes == ("Noise 0.01: 95 % interval of the rate per 1,000: unknown (exact, Poisson).",)
    assert found.tiles[0]["value"] == "unknown per 1,000 alive"


def test_the_plan_harvests_one_model_and_trains_one_crosscoder_per_seed() -> None:
    from crossdiff.pipeline.plan import plan

    stages = [
        step.stage for step in plan(experiment("experiment=self_diff", "size=ci", "study.seeds=[0,1,2]"))
    ]
    assert stages.count("harvest") == 1
    assert stages.count("self_diff") == 3
    assert "train" not in stages
    assert stages[-1] == "study"
