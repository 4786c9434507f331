"""The plan shares what can be shared, and every input changes exactly the keys that stand on it."""

import re
from pathlib import Path

import pytest

from crossdiff.actions.run import products
from crossdiff.config import Experiment
from crossdiff.io.artifacts import write_manifest
from crossdiff.io.environment import conf_dir
from crossdiff.pipeline.plan import plan, without_failed
from crossdiff.pipeline.steps import Step, group, merge
from tests.composed import experiment as build
from tests.finished_annotation import experiment


def steps(*overrides: str) -> list[Step]:
    return plan(build(*overrides))


def changed(before: list[Step], after: list[Step]) -> set[str]:
    """Stages of which some key is new."""
    known = {step.key for step in before}
    return {step.stage for step in after if step.key not in known}


PAIR = ("model_pair=toy_pt_it", "corpus=toy", "layer=1")
SINGLE = ("experiment=demo", "comparison.n_seeds=1")
SEVERAL = "comparison.n_seeds=2"
AFTER_TRAINING = {"train", "scale", "documents", "annotate", "report"}


def test_a_comparison_harvests_the_shared_base_once() -> None:
    found = [step.name for step in steps(*SINGLE)]
    assert found.count("harvest pt") == 1
    assert [name for name in found if name.startswith("train")] == ["train toy_pt_it", "train toy_pt_simpo"]


def test_parents_come_before_their_children() -> None:
    seen: set[str] = set()
    for step in steps(*SINGLE):
        assert {parent.key for parent in step.parents.values()} <= seen
        seen.add(step.key)


def test_pairs_and_layers_of_a_sweep_share_tokens_and_forward_passes() -> None:
    plans = [
        steps(f"model_pair={pair}", "corpus=toy", f"layer={layer}")
        for pair in ("toy_pt_it", "toy_pt_simpo")
        for layer in (1, 2)
    ]
    jobs = group(merge(plans))
    harvests = [job for job in jobs if job.stage == "harvest"]
    assert sorted(job.name for job in harvests) == [
        "harvest it (layers 1,2)",
        "harvest pt (layers 1,2)",
        "harvest simpo (layers 1,2)",
    ]
    assert sum(job.stage == "tokens" for job in jobs) == 1
    assert sum(job.stage == "train" for job in jobs) == 4


def test_the_seed_reaches_every_key_that_draws_random_numbers() -> None:
    assert changed(steps(*PAIR), steps(*PAIR, "seed=1")) == {"organism", "tokens", "harvest", *AFTER_TRAINING}


def test_training_settings_do_not_touch_the_harvest() -> None:
    assert changed(steps(*PAIR), steps(*PAIR, "training.learning_rate=2e-4")) == AFTER_TRAINING
    assert changed(steps(*PAIR), steps(*PAIR, "sparsity.k=7")) == AFTER_TRAINING


def test_the_selection_does_not_touch_training() -> None:
    assert changed(steps(*PAIR), steps(*PAIR, "selection.nu_error=0.1")) == AFTER_TRAINING - {"train"}


def test_the_layer_does_not_touch_the_tokens() -> None:
    assert changed(steps(*PAIR), steps(*PAIR, "layer=2")) == {"harvest", *AFTER_TRAINING}


def test_where_it_runs_changes_no_key() -> None:
    machine = ("device=cpu", "store=/elsewhere", "results_dir=/r", "progress=false", "logger=none")
    elsewhere = steps(*PAIR, *machine)
    assert changed(steps(*PAIR), elsewhere) == set()


def test_harvest_cost_of_several_layers_is_that_of_the_deepest() -> None:
    plans = [steps("model_pair=pt_it", f"layer={layer}") for layer in (10, 20)]
    shared = next(job for job in group(merge(plans)) if job.stage == "harvest")
    deepest = next(step for step in plans[1] if step.stage == "harvest")
    assert shared.cost.gpu_hours == deepest.cost.gpu_hours
    assert shared.cost.disk_gb == 2 * deepest.cost.disk_gb


def test_the_minder_preset_harvests_half_of_the_tokens_that_it_trains_on() -> None:
    harvest = next(step for step in steps("experiment=minder") if step.stage == "harvest")
    whole = next(step for step in steps("model_pair=pt_it", "layer=20") if step.stage == "harvest")
    assert harvest.cost.disk_gb == whole.cost.disk_gb / 2
    train = [step.cost.gpu_hours for step in steps("experiment=minder") if step.stage == "train"]
    assert (
        train
        == [step.cost.gpu_hours for step in steps("model_pair=pt_it", "layer=20") if step.stage == "train"]
        * 2
    )


@pytest.mark.parametrize("overrides", [("model_pair=pt_it", "layer=42"), (*PAIR[:2], "layer=4")])
def test_a_layer_outside_a_known_model_is_refused_before_anything_runs(overrides: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="blocks have indices 0 to"):
        steps(*overrides)


def test_the_toy_has_a_cost() -> None:
    assert None not in [step.cost.cpu_hours for step in steps("experiment=demo")]


MEMBERS = ("experiment=demo", "comparison.n_seeds=3")


def test_members_train_apart_and_share_everything_before_and_after() -> None:
    single, several = steps(*SINGLE), steps(*MEMBERS)
    names = [step.name for step in several]
    assert [name for name in names if name.startswith("train")] == [
        "train toy_pt_it", "train toy_pt_it_seed1", "train toy_pt_it_seed2",
        "train toy_pt_simpo", "train toy_pt_simpo_seed1", "train toy_pt_simpo_seed2",
    ]  # fmt: skip
    for stage, count in (("tokens", 1), ("harvest", 3), ("documents", 6), ("annotate", 1), ("compare", 1)):
        assert sum(step.stage == stage for step in several) == count
    assert "annotate toy_pt_it_and_toy_pt_simpo" in names
    first = {"train", "scale", "documents", "match"}
    assert {s.key for s in single if s.stage in first} <= {s.key for s in several}


def test_another_seed_adds_its_own_steps_and_what_reads_them() -> None:
    before, after = steps(*MEMBERS), steps("experiment=demo", "comparison.n_seeds=4")
    known = {step.key for step in before}
    new = [step.name for step in after if step.key not in known]
    assert [name for name in new if "seed" in name and not name.startswith("annotate")] == [
        f"{stage} {pair}_seed3"
        for pair in ("toy_pt_it", "toy_pt_simpo")
        for stage in ("train", "scale", "documents")
    ]
    assert changed(before, after) == {"train", "scale", "documents", "annotate", "compare", "report"}


def test_a_member_of_a_seed_is_the_single_run_of_that_seed() -> None:
    single = steps(*SINGLE, "+comparison.reference.seed=2")
    trains = {step.key for step in steps(*MEMBERS) if step.stage == "train"}
    assert next(step.key for step in single if step.name == "train toy_pt_it") in trains


def test_difference_dictionaries_of_several_seeds_are_compared_by_sign_and_not_matched() -> None:
    found = steps("experiment=demo", "comparison.n_seeds=2", "dictionary.architecture=diff_sae")
    assert not {"match", "represented"} & {step.stage for step in found}
    inputs = next(step.inputs for step in found if step.stage == "compare")
    assert inputs.by_sign  # type: ignore[attr-defined]
    assert inputs.members["toy_pt_it"] == ("toy_pt_it", "toy_pt_it_seed1")  # type: ignore[attr-defined]


def test_a_member_that_is_left_out_is_not_planned_and_the_compare_step_knows_it() -> None:
    found = steps(*MEMBERS, "comparison.without=[toy_pt_it_seed1]")
    assert "train toy_pt_it_seed1" not in [step.name for step in found]
    inputs = next(step.inputs for step in found if step.stage == "compare")
    assert inputs.left_out == ("toy_pt_it_seed1",)  # type: ignore[attr-defined]
    assert inputs.members["toy_pt_it"] == ("toy_pt_it", "toy_pt_it_seed2")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("override", "message"),
    [("comparison.without=[toy_pt_it_seed7]", "is no crosscoder here"),
     ("comparison.without=[toy_pt_it,toy_pt_it_seed1,toy_pt_it_seed2]", "no crosscoder; name fewer"),
     ("comparison.seed_null=somewhere", "comparison.n_seeds=1, or leave"),
     ("comparison.treatment.name=toy_pt_it_seed1", "one name")],
)  # fmt: skip
def test_members_that_cannot_be_are_refused(override: str, message: str) -> None:
    with pytest.raises(Exception, match=message):
        steps(*MEMBERS, override)


def test_the_plan_over_files_costs_what_the_finished_token_set_holds(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("words")
    corpus = ("corpus=files", "corpus.context=64", f"corpus.paths=[{tmp_path}/text.txt]")
    point = ("model_pair=toy_pt_it", "layer=1", *corpus, f"store={tmp_path}")
    before = {step.stage: step for step in steps(*point)}
    assert before["scale"].cost.cpu_hours is None
    folder = before["tokens"].folder(tmp_path)
    folder.mkdir(parents=True)
    write_manifest(folder, {"counts": {"n_tokens": 1000}})
    after = {step.stage: step for step in steps(*point)}
    assert after["scale"].cost.cpu_hours
    assert after["harvest"].cost.disk_gb
    assert {step.key for step in after.values()} == {step.key for step in before.values()}


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


def step_of(asked: Experiment, name: str) -> Step:
    return next(step for step in plan(asked) if step.name == name)


def test_a_failed_member_is_left_out_and_the_compare_step_names_it(tmp_path: Path) -> None:
    asked = experiment(tmp_path, SEVERAL)
    (remaining,) = without_failed([asked], [step_of(asked, "train toy_pt_it_seed1")]) or []
    assert remaining.comparison is not None
    assert remaining.comparison.without == ("toy_pt_it_seed1",)
    assert step_of(remaining, "compare toy_pt_it_vs_toy_pt_simpo").inputs.left_out == ("toy_pt_it_seed1",)  # type: ignore[attr-defined]
    assert without_failed([remaining], [step_of(asked, "train toy_pt_it")]) is None, "its pair has no other"


@pytest.mark.parametrize("name", ["harvest it", "tokens toy", "annotate toy_pt_it_and_toy_pt_simpo"])
def test_a_step_that_all_members_need_cannot_be_left_out(tmp_path: Path, name: str) -> None:
    asked = experiment(tmp_path, SEVERAL)
    assert without_failed([asked], [step_of(asked, name)]) is None


def test_only_the_grid_points_that_have_the_crosscoder_change(tmp_path: Path) -> None:
    asked, other = experiment(tmp_path, SEVERAL), experiment(tmp_path, SEVERAL, "training.learning_rate=0.1")
    remaining = without_failed([asked, other], [step_of(asked, "scale toy_pt_it")])
    assert remaining is not None
    assert remaining[1] is other
    assert remaining[0].members["toy_pt_it"][0].name == "toy_pt_it_seed1"


def test_nothing_that_would_change_nothing_is_run_again(tmp_path: Path) -> None:
    asked = experiment(tmp_path, SEVERAL)
    (remaining,) = without_failed([asked], [step_of(asked, "train toy_pt_it_seed1")]) or []
    assert without_failed([remaining], [step_of(asked, "train toy_pt_it_seed1")]) is None
    assert without_failed([asked], []) is None
