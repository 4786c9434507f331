"""The plan as text."""

from pathlib import Path

import pytest

from crossdiff.annotation.settings import Claude, Lexical
from crossdiff.pipeline.cost import annotation_cost, plan_table, remaining_cost
from crossdiff.pipeline.plan import plan
from crossdiff.pipeline.steps import merge
from crossdiff.studies.planted import PlantedTruth
from tests.composed import experiment


def test_steps_of_a_layer_sweep_are_told_apart_by_their_layer(tmp_path: Path) -> None:
    points = [experiment("model_pair=pt_it", f"layer={layer}") for layer in (10, 20)]
    text = plan_table(merge([plan(point) for point in points]), tmp_path)
    names = [line.split("  ")[0] for line in text.splitlines()[2:-1]]
    assert {"harvest pt, layer 10", "harvest pt, layer 20", "train pt_it, layer 10"} < set(names)
    assert len(names) == len(set(names))
    alone = plan_table(plan(points[0]), tmp_path)
    assert ", layer" not in alone


def test_drifted_latents_are_in_the_dollars_of_the_plan() -> None:
    """110 latents of one pair and 50 drifted ones, 0.35 cents each."""
    plain = annotation_cost(Claude(), n_pairs=1)
    assert plain.api_usd == pytest.approx(110 * 0.0035)
    assert annotation_cost(Claude(), n_pairs=1, n_drifted=50).api_usd == pytest.approx(160 * 0.0035)
    assert annotation_cost(Lexical(), n_pairs=1, n_drifted=50).api_usd == 0


def test_the_framing_control_is_in_the_dollars_of_the_plan() -> None:
    """Two questions for each of ten controls, where six questions are a latent's 0.35 cents."""
    more = (
        annotation_cost(Claude(framing=True), n_pairs=1).api_usd
        - annotation_cost(Claude(), n_pairs=1).api_usd
    )
    assert more == pytest.approx(20 / 6 * 0.0035)


def test_trainings_on_planted_truth_are_in_the_hours_of_the_plan(tmp_path: Path) -> None:
    """One kind: steps of 24 ms, their products at 0.2 TFLOP/s, and a second; the study's page one more."""
    asked = experiment("experiment=planted", "size=ci", "study.only=[l1]", "study.seeds=[0]")
    study = asked.study
    assert isinstance(study, PlantedTruth)
    products = 36.2 / 8.5 * 4 * study.planted.d_model * study.n_latents * study.n_steps * study.batch_size
    seconds = study.n_steps * 0.024 + products / 0.2e12 + 2
    assert remaining_cost(plan(asked), tmp_path).cpu_hours == pytest.approx(seconds / 3600)
