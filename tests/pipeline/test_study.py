"""A study is one plan: its runs share what they can, and end in one page."""

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from crossdiff import config
from crossdiff.actions.run import products
from crossdiff.io.environment import conf_dir
from crossdiff.pipeline.jobs import group
from crossdiff.pipeline.plan import plan
from crossdiff.pipeline.steps import merge


def build(*overrides: str) -> config.Experiment:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return config.load(compose("config", overrides=list(overrides)))


def test_runs_of_a_study_share_tokens_organism_and_forward_passes() -> None:
    steps = plan(build("experiment=layers", "size=ci"))
    assert [step.stage for step in steps].count("organism") == 1
    assert [step.stage for step in steps].count("tokens") == 1
    assert len([job for job in group(merge([steps])) if job.stage == "harvest"]) == 3
    assert steps[-1].name == "study layers"
    assert set(steps[-1].parents) == {"run_layer_1", "run_layer_2"}


def test_a_study_shares_its_runs_with_the_plain_command() -> None:
    study = {step.key for step in plan(build("experiment=layers", "size=ci"))}
    plain = plan(build("size=ci", "name=null"))
    assert {step.key for step in plain} <= study


def test_every_run_has_a_results_folder_below_the_study_s(tmp_path: Path) -> None:
    experiment = build("experiment=layers", "size=ci", f"results_dir={tmp_path}")
    last = plan(experiment)[-1]
    folders = {folder: step.stage for folder, step in products(experiment, last)}
    assert folders == {tmp_path / "layer_1": "report", tmp_path / "layer_2": "report", tmp_path: "study"}


def test_the_size_changes_models_and_study_alike() -> None:
    small, paper = build("experiment=layers", "size=ci"), build("experiment=layers", "size=paper")
    assert small.study.layers == (1, 2)  # type: ignore[union-attr]
    assert paper.study.layers == (10, 20, 30)  # type: ignore[union-attr]
    assert paper.pairs[0].base.path == "google/gemma-2-9b"
    assert small.results == Path("results/layers_ci")


def test_a_layer_beyond_the_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"layer=9 .*0 to 3"):
        plan(build("experiment=layers", "size=ci", "study.layers=[1,9]"))


def test_the_example_of_the_docs_is_a_study() -> None:
    text = (conf_dir().parent / "src/crossdiff/docs/add_a_study.md").read_text()
    space: dict = {"__name__": "example"}
    exec(re.search(r"```python\n(.*?)```", text, re.S).group(1), space)  # type: ignore[union-attr]
    steps = plan(build("size=ci").model_copy(update={"study": space["Draws"]()}))
    assert set(steps[-1].parents) == {"run_draws_500", "run_draws_1000"}
    assert [step.stage for step in steps].count("train") == 2
