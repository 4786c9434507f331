"""The study over three models: which it takes, and what it refuses."""

from pathlib import Path

import pytest

from crossdiff.io.tables import write_json
from crossdiff.pipeline.plan import plan
from crossdiff.studies.several import ThreeModels
from tests.composed import experiment


def test_the_three_models_of_a_comparison_share_one_crosscoder() -> None:
    steps = plan(experiment("experiment=several", "size=ci"))
    step = next(step for step in steps if step.stage == "several")
    assert step.inputs.models == ("pt", "it", "simpo")  # type: ignore[attr-defined]
    labels = {role: parent.label for role, parent in step.parents.items()}
    expected = {"harvest_base": "pt", "harvest_tuned_1": "it", "harvest_tuned_2": "simpo"}
    assert labels == {"tokens": labels["tokens"], **expected}


def test_two_models_are_refused() -> None:
    three = experiment("experiment=several", "size=ci")
    two = three.model_copy(update={"comparison": None, "model_pair": three.pairs[0]})
    with pytest.raises(ValueError, match=r"needs three models or more, the experiment has pt, it"):
        plan(two)


def test_a_missing_figure_is_said(tmp_path: Path) -> None:
    found = {
        "models": ["pt", "it"], "fve": {"pt": 0.9, "it": None}, "l0": 24.0, "n_alive": 9, "n_latents": 10,
        "exclusive": {"pt": {"all others": 1}}, "lacking": {"pt": 0},
    }  # fmt: skip
    write_json(found, tmp_path / "several.json")
    assert ThreeModels().analyse({}, {"several": tmp_path}).notes == ("FVE: pt 0.900, it unknown.",)
