"""The ladder's rungs, and from which on it sees something."""

from collections import Counter

import pytest

from crossdiff.models.pair import fingerprint
from crossdiff.pipeline.plan import plan
from crossdiff.studies.similarity_ladder import SimilarityLadder
from tests.pipeline.test_plan import build
from tests.study_products import write_run


def test_only_the_models_in_between_are_made() -> None:
    steps = plan(build("experiment=similarity_ladder", "size=ci"))
    assert [step.name for step in steps if step.stage == "blend"] == ["blend it_to_simpo_0.5"]
    harvest = next(step for step in steps if step.name == "harvest it_to_simpo_0.5")
    assert harvest.parents["model"].stage == "blend"
    assert fingerprint(harvest.inputs.model) == "blend:organism:it+0.5*(organism:simpo)"


def test_the_first_clear_rung_is_named(tmp_path) -> None:
    counts = {"distance_0": 0, "distance_0.5": 1, "distance_1": 30}
    runs = {
        name: write_run(tmp_path / name, {"pair": Counter()}, n_exclusive={"pair": count})
        for name, count in counts.items()
    }
    found = SimilarityLadder(distances=(0, 0.5, 1)).analyse(runs, {})
    assert "from distance 1 of the step on" in found.answer


def test_distances_rise_from_zero() -> None:
    with pytest.raises(ValueError, match="begin with 0"):
        SimilarityLadder(distances=(0.5, 1))
