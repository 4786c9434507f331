from __future__ import annotations

import json
from dataclasses import replace

import pytest

from crossdiff.models.pair import ModelSettings
from crossdiff.report.sources import Sources
from crossdiff.report.summary import settings_of, summary


def test_a_missing_figure_is_null_and_never_zero(sources: Sources) -> None:
    pair = replace(sources.pairs["pt_it"], training={"fve_base": float("nan")}, annotated=False)
    found = summary(replace(sources, pairs={"pt_it": pair}), setting_stages=())["pairs"]["pt_it"]
    assert found["fve_base"] is None
    assert found["n_labelled"] is None
    assert found["dead_share"] == pytest.approx(0.05)
    json.dumps(found, allow_nan=False)


def test_without_a_truth_the_recovered_changes_have_no_group(sources: Sources) -> None:
    assert sources.comparison is not None
    bare = replace(sources.comparison, facts={"recovered": None, "planted": None})
    found = summary(replace(sources, comparison=bare), setting_stages=())["comparison"]
    assert found["planted"] is None
    assert len(found["recovered"]) == 9
    assert {row["group"] for row in found["recovered"]} == {None}


def test_settings_have_their_names_on_the_command_line() -> None:
    """As manifests record them: `identity` leaves out a model's path, `inputs` has it."""
    model = {"name": "pt", "path": "organism:pt", "revision": None}
    found = settings_of(
        [
            {
                "stage": "harvest", "inputs": {"model": model},
                "identity": {"settings": "HarvestInputs", "model": {"name": "pt"}, "layers": [2]},
            },
            {
                "stage": "train", "inputs": {},
                "identity": {
                    "settings": "TrainInputs", "layer": 2, "seed": 1,
                    "sparsity": {"settings": "BatchTopK", "k": 24}, "training": {"betas": [0.9, 0.999]},
                },
            },
            {"stage": "compare", "inputs": {}},
            {"stage": "report"},
        ],
        ("harvest", "train", "compare"),
    )  # fmt: skip
    assert found == {
        "models.pt": "organism:pt", "layer": 2, "seed": 1, "sparsity": "BatchTopK", "sparsity.k": 24,
        "training.betas": "[0.9, 0.999]",
    }  # fmt: skip


def test_models_that_differ_in_adapter_or_blend_alone_have_different_settings() -> None:
    plain = ModelSettings(name="tuned", path="org/base", revision="main")
    variants = (
        plain,
        plain.model_copy(update={"adapter": "org/lora_a"}),
        plain.model_copy(update={"adapter": "org/lora_b"}),
        plain.model_copy(update={"towards": "org/tuned", "distance": 0.25}),
        plain.model_copy(update={"towards": "org/tuned", "distance": 0.75}),
    )
    found = [
        settings_of([{"stage": "harvest", "inputs": {"model": model.model_dump()}}], ("harvest",))
        for model in variants
    ]
    assert found == [
        {"models.tuned": "org/base@main"},
        {"models.tuned": "org/base@main", "models.tuned.adapter": "org/lora_a"},
        {"models.tuned": "org/base@main", "models.tuned.adapter": "org/lora_b"},
        {"models.tuned": "org/base@main", "models.tuned.towards": "org/tuned", "models.tuned.distance": 0.25},
        {"models.tuned": "org/base@main", "models.tuned.towards": "org/tuned", "models.tuned.distance": 0.75},
    ]
