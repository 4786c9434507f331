"""The study over three models: which it takes, and what it refuses."""

import pytest

from crossdiff.pipeline.plan import plan
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
