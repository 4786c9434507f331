"""The planted study: its plan, and means over seeds by hand."""

from pathlib import Path

import pandas as pd
import pytest

from crossdiff.pipeline.plan import plan
from crossdiff.studies.planted import SHOWN, PlantedTruth
from crossdiff.studies.planted.settings import KINDS
from tests.composed import experiment


def table(folder: Path, seed: int, f1: float) -> Path:
    folder.mkdir()
    row = {"contender": "batch_topk", "seed": seed, **dict.fromkeys(SHOWN, 1.0)}
    for method in ("norm", "scaling"):
        bands = ("frequent", "rare", "all")
        row |= {f"{method}_{x}_{g}": f1 for x in ("precision", "recall", "f1") for g in bands}
        row |= {f"{method}_{x}_scarce": None for x in ("precision", "recall", "f1")}
        row |= {f"{method}_base_{x}_all": f1 for x in ("precision", "recall")}
        row |= {f"{method}_called_{kind}": 0 for kind in (*KINDS, "unmatched")}
    pd.DataFrame([row]).to_csv(folder / "planted.csv", index=False)
    return folder


def test_the_answer_is_the_mean_over_seeds_against_what_is_required(tmp_path: Path) -> None:
    extras = {"seed_0": table(tmp_path / "a", 0, 1.0), "seed_1": table(tmp_path / "b", 1, 0.84)}
    found = PlantedTruth().analyse({}, extras)
    assert found.numbers["means"]["batch_topk"]["scaling_f1_rare"] == pytest.approx(0.92)
    assert "0.920 for latents of 1 % of tokens and more (misses the 0.95" in found.answer
    assert "0.920 for latents of 0.3 to 1 % of tokens (reaches the 0.85" in found.answer
    assert [chart.name for chart in found.charts] == ["f1_frequent", "f1_rare", "calls", "quality"]


def test_the_plan_has_three_steps_per_seed_and_nothing_else() -> None:
    """One of the first six kinds, whose keys stay, and one for each group of those that came later."""
    stages = [step.stage for step in plan(experiment("experiment=planted"))]
    assert stages == ["planted"] * 15 + ["study"]


def test_the_hard_world_is_one_setting_and_others_can_be_changed_in_it() -> None:
    steps = plan(experiment("experiment=planted", "study.planted.world=hard", "+study.planted.d_model=32"))
    world = steps[0].inputs.planted
    assert (world.d_model, world.shrunken_ratio, world.scales) == (32, 0.3, (1.0, 8.0))
    assert sum(world.counts().values()) == 300


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"study.only=\['gated'\]: choose from l1, topk"):
        plan(experiment("experiment=planted", "study.only=[gated]"))


def test_a_seed_without_a_score_is_left_out_and_no_score_is_no_verdict(tmp_path: Path) -> None:
    nothing = float("nan")
    some = {"seed_0": table(tmp_path / "a", 0, 1.0), "seed_1": table(tmp_path / "b", 1, nothing)}
    found = PlantedTruth().analyse({}, some)
    assert "1.000 for latents of 1 % of tokens and more (reaches" in found.answer
    figure = found.charts[0].figure
    assert figure is not None
    assert figure.data[0].x == (1.0,)
    answer = PlantedTruth().analyse({}, {"seed_0": table(tmp_path / "c", 0, nothing)}).answer
    assert "unknown for latents of 0.3 to 1 % of tokens (cannot be held against the 0.85 asked for" in answer
    assert "nan" not in answer
