"""Logs find their model, become one step per model, and stand beside the built-in sets."""

import json
from pathlib import Path
from typing import Any

import pytest

from crossdiff.models.pair import ModelSettings
from crossdiff.pipeline.plan import plan
from crossdiff.settings import Runtime
from crossdiff.studies.behaviour import Behaviour
from crossdiff.studies.behaviour.binary_scores import is_model
from crossdiff.studies.behaviour.logs import read_logs, run
from tests.composed import experiment
from tests.studies.behaviour.test_inspect_logs import HEADER, sample
from tests.studies.behaviour.test_inspect_logs import write as write_archive
from tests.studies.test_behaviour import NAMES
from tests.studies.test_behaviour import extras as rates_of
from tests.studies.test_behaviour import run as one_run

MODELS = {
    "reference": ModelSettings(name="it", path="google/gemma-2-9b-it"),
    "treatment": ModelSettings(name="simpo", path="princeton-nlp/gemma-2-9b-it-SimPO"),
}
NAME = {side: model.path for side, model in MODELS.items()}


def archive(
    folder: Path, side: str, right: int, *, task: str = "xstest", n: int = 10, model: str = ""
) -> Path:
    header = {**HEADER, "eval": {"task": task, "model": model or f"hf/{NAME[side]}"}}
    rows = [sample(number, grader="C" if number < right else "I") for number in range(n)]
    return write_archive(folder / f"{side}-{task}.eval", header=header, summaries=rows)


def results(path: Path, side: str, metrics: dict[str, Any]) -> Path:
    counts = {task: {"original": 10, "effective": 10} for task in metrics}
    path.write_text(json.dumps({"results": metrics, "n-samples": counts, "model_name": NAME[side]}))
    return path


def test_logs_of_both_tools_go_to_their_models_with_categories(tmp_path: Path) -> None:
    """xstest's wrong answers are refusals: 10 - 8 and 10 - 6 of them; gsm8k has 5 and 7 right answers."""
    for side, right in (("reference", 8), ("treatment", 6)):
        archive(tmp_path, side, right)
    results(tmp_path / "results_a.json", "reference", {"gsm8k": {"exact_match,none": 0.5}})
    results(tmp_path / "results_b.json", "treatment", {"gsm8k": {"exact_match,none": 0.7}, "mbpp": {"f": 1}})
    found = read_logs([str(tmp_path)], MODELS, {})
    rows = {side: {one.name: one for one in asked.sets} for side, asked in found.items()}
    for side, counts in {"reference": (2, 5), "treatment": (4, 7)}.items():
        assert (rows[side]["xstest/grader"].shown, rows[side]["gsm8k/exact_match"].shown) == counts
        assert {one.n for one in rows[side].values()} == {10}
    assert rows["reference"]["xstest/grader"].category == "harmful_request_refusal"
    assert rows["reference"]["gsm8k/exact_match"].category == "mathematics"
    assert any("no yes or no" in note and "mbpp/f" in note for note in found["reference"].notes)


def test_where_the_logs_lie_is_no_part_of_the_identity(tmp_path: Path) -> None:
    identities = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for side in MODELS:
            archive(tmp_path / name, side, 5)
        identities.append(read_logs([str(tmp_path / name)], MODELS, {})["reference"].identity())
    assert identities[0] == identities[1]


@pytest.mark.parametrize(
    ("said", "it", "simpo"),
    [
        ("google/gemma-2-9b-it", True, False),
        ("vllm/google/gemma-2-9b-it", True, False),
        ("/models/google/gemma-2-9b-it/", True, False),
        ("gemma-2-9b-it", True, False),
        ("it", True, False),
        ("hf/someone/gemma-2-9b-it", False, False),
        ("hf/someone/it", False, False),
        ("hf/princeton-nlp/gemma-2-9b-it-simpo", False, True),
        ("openai/gpt-4o", False, False),
    ],
)
def test_a_logged_name_is_one_model_or_none(said: str, it: bool, simpo: bool) -> None:
    assert (is_model(said, MODELS["reference"]), is_model(said, MODELS["treatment"])) == (it, simpo)


def test_a_side_can_be_named(tmp_path: Path) -> None:
    paths = [archive(tmp_path, side, 5, model="openai/local") for side in MODELS]
    with pytest.raises(ValueError, match="fits neither of the models compared.*reference="):
        read_logs([str(path) for path in paths], MODELS, {})
    named = [f"{side}={path}" for side, path in zip(MODELS, paths, strict=True)]
    assert read_logs(named, MODELS, {"xstest": "privacy_protection"})["reference"].sets[0].shown == 5


def test_what_cannot_be_compared_is_refused_with_the_way_out(tmp_path: Path) -> None:
    first = archive(tmp_path, "reference", 5)
    second = archive(tmp_path, "treatment", 5, task="other")
    with pytest.raises(ValueError, match=r"no task is counted for both models.*xstest/grader.*other/grader"):
        read_logs([str(first), str(second)], MODELS, {})
    (tmp_path / "again").mkdir()
    with pytest.raises(ValueError, match=r"gives 6 of 10 for xstest/grader, another log .* 5 of 10"):
        read_logs([str(first), str(archive(tmp_path / "again", "reference", 6))], MODELS, {})
    with pytest.raises(ValueError, match="does not exist"):
        read_logs([str(tmp_path / "nowhere")], MODELS, {})
    strange = tmp_path / "chats.json"
    strange.write_text('{"messages": []}')
    with pytest.raises(ValueError, match=r"chats\.json is no log of inspect_ai .* or lm-evaluation-harness"):
        read_logs([str(strange)], MODELS, {})
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no log"):
        read_logs([str(tmp_path / "empty")], MODELS, {})


def test_the_study_reads_logs_at_plan_time_and_may_ask_the_models_nothing(tmp_path: Path) -> None:
    for side, right in (("reference", 8), ("treatment", 6)):
        name = {"reference": "it", "treatment": "simpo"}[side]
        archive(tmp_path, side, right, model=f"hf/toy/{name}")
    common = ("experiment=behaviour", "size=ci", f"study.logs=[{tmp_path}]")
    both = [step.stage for step in plan(experiment(*common))]
    assert both.count("outside_rates") == 2
    assert both.count("generate") == 2
    alone = plan(experiment(*common, "study.prompts=none", "study.categories={xstest: not mathematics}"))
    assert not any(step.stage == "generate" for step in alone)
    sets = {step.inputs.sets[0] for step in alone if step.stage == "outside_rates"}  # type: ignore[attr-defined]
    assert {(one.category, one.shown) for one in sets} == {("mathematics", 2), ("mathematics", 4)}
    with pytest.raises(ValueError, match=r"asks the models nothing; give study\.logs"):
        plan(experiment("experiment=behaviour", "size=ci", "study.prompts=none"))


def test_logged_rates_stand_in_the_table_and_in_the_correlation(make_run, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    for side, right in (("reference", 8), ("treatment", 6)):
        archive(tmp_path / "logs", side, right)
    folders = rates_of(tmp_path, [2, 5, 9, 20, 30, 40], [40, 30, 20, 9, 5, 2])
    for side, asked in read_logs([str(tmp_path / "logs")], MODELS, {"xstest": NAMES[0]}).items():
        folders[f"logs_{side}"] = tmp_path / f"logs_{side}"
        folders[f"logs_{side}"].mkdir()
        run(asked, {}, folders[f"logs_{side}"], Runtime(progress=False))
    study = Behaviour(seeds=(0,), prompts="built_in", n_prompts=8, n_new_tokens=4, logs=("logs",))
    found = study.analyse(one_run(make_run), folders)
    assert found.numbers["correlations"]["measured rates"]["n"] == 6  # xstest joins a category
    row = next(row for row in found.numbers["rates"] if row["name"] == "xstest/grader")
    assert (row["reference"], row["treatment"]) == ((8, 10), (6, 10))
    low, high = row["interval_reference"]
    assert (low, high) == pytest.approx((0.490, 0.943), abs=1e-3)  # Wilson, 8 of 10


def test_a_foreign_file_in_a_folder_is_skipped_and_named(tmp_path: Path) -> None:
    for side in MODELS:
        archive(tmp_path, side, 5)
    (tmp_path / "notes.json").write_text('{"messages": []}')
    found = read_logs([str(tmp_path)], MODELS, {})
    assert found["reference"].sets[0].shown == 5
    assert any("no logs" in note and "notes.json" in note for note in found["reference"].notes)


def test_a_score_that_another_file_of_the_model_counts_is_not_left_out(tmp_path: Path) -> None:
    """Results without a number of answers, samples beside them; the other model lacks the samples."""
    for side in MODELS:
        folder = tmp_path / side
        folder.mkdir()
        archive(folder, side, 5)
        data = {"results": {"mbpp": {"acc,none": 0.5}}, "n-samples": {}, "model_name": NAME[side]}
        (folder / "results_a.json").write_text(json.dumps(data))
        lines = [
            {"doc_id": n, "doc": {}, "metrics": ["acc"], "acc": n % 2, "filter": "none"} for n in range(4)
        ]
        text = "\n".join(map(json.dumps, lines))
        (folder / "samples_mbpp_2026-01-01T00-00-00.000000.jsonl").write_text(text)
    entries = [f"{side}={tmp_path / side}" for side in MODELS]
    found = read_logs(entries, MODELS, {})["treatment"]
    assert {one.name: one.shown for one in found.sets} == {"xstest/grader": 5, "mbpp/acc": 2}
    assert not any("no yes or no" in note for note in found.notes)
