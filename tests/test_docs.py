"""The examples of the pages that say how to extend crossdiff are run as a reader would run them."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

import crossdiff
from crossdiff.io.artifacts import write_manifest
from crossdiff.io.environment import conf_dir
from crossdiff.io.tables import read_json, write_json
from crossdiff.pipeline.plan import plan
from crossdiff.settings import Runtime
from crossdiff.stages import protocol
from crossdiff.taxonomy.scheme import OTHER
from crossdiff.training.run import fit
from crossdiff.training.trainer import RunFolder
from experiments.notebook.execute import NOTEBOOK, PLOTLY, executed
from tests.annotation.campaign import campaign, scheme
from tests.composed import experiment as composed_experiment
from tests.finished_annotation import experiment, finished, make
from tests.planted_source import PlantedSource
from tests.study_products import write_run
from tests.training.test_run import make_run

ROOT = conf_dir().parent
PAGES = {
    "add_a_sparsity": ("my_sparsity.py", "sparsity/log.yaml", "sparsity=log"),
    "add_an_annotator": ("my_annotators.py", "annotator/peaks.yaml", "annotator=peaks"),
}


def block(page: str, language: str) -> str:
    text = (ROOT / f"src/crossdiff/docs/{page}.md").read_text()
    found = re.search(rf"```{language}\n(.*?)```", text, re.S)
    assert found is not None
    return found.group(1)


def blocks(page: str) -> list[str]:
    text = (ROOT / f"src/crossdiff/docs/{page}.md").read_text()
    return re.findall(r"```python[^\n]*\n(.*?)```", text, re.S)


@pytest.fixture
def beside_the_demo(tmp_path: Path) -> Path:
    """A folder with `results/demo`, the models and some texts of a finished demo (`make demo`)."""
    results = Path(os.environ.get("CROSSDIFF_DEMO", ROOT / "results" / "demo"))
    if not (results / "summary.json").is_file():
        reason = f"{results} is no finished demo: run `make demo`, or set CROSSDIFF_DEMO to its results"
        pytest.fail(reason) if os.environ.get("CROSSDIFF_NO_SKIPS") else pytest.skip(reason)
    store = crossdiff.open_run(results).steps.store
    shutil.copytree(results, tmp_path / "results" / "demo")
    summary = read_json(results / "summary.json") | {"store": str(store)}
    write_json(summary, tmp_path / "results" / "demo" / "summary.json")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "organism").symlink_to(store / "organism")
    corpus = next((store / "organism").glob("*/corpus/web.jsonl")).read_text().splitlines()[:600]
    (tmp_path / "texts.txt").write_text(
        "\n".join(json.loads(line)["text"].replace("\n", " ") for line in corpus)
    )
    return tmp_path


@pytest.mark.slow
def test_the_examples_of_the_python_page_run_on_the_demo(beside_the_demo: Path) -> None:
    (beside_the_demo / "page.py").write_text("\n\n".join(blocks("python")))
    done = subprocess.run(
        [sys.executable, "page.py"], cwd=beside_the_demo, capture_output=True, text=True, timeout=600,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "«" in done.stdout
    assert "something else" in done.stdout
    assert (beside_the_demo / "changes.html").stat().st_size > 100_000


@pytest.mark.slow
def test_the_notebook_runs_on_the_demo_and_shows_pictures(
    beside_the_demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    found = executed(NOTEBOOK, beside_the_demo)
    outputs = [output for cell in found.cells for output in cell.get("outputs", [])]
    kinds = Counter(kind for output in outputs for kind in output.get("data", {}))
    assert kinds[PLOTLY] == 3
    assert sum("<mark" in output.get("data", {}).get("text/html", "") for output in outputs) >= 2


def example(page: str) -> dict:
    space: dict = {"__name__": "example"}
    exec(block(page, "python"), space)
    return space


@pytest.mark.parametrize("page", PAGES)
def test_the_pages_commands_take_a_class_from_outside_the_package(page: str, tmp_path: Path) -> None:
    module, option, override = PAGES[page]
    (tmp_path / module).write_text(block(page, "python"))
    written = tmp_path / "my_conf" / option
    written.parent.mkdir(parents=True)
    written.write_text(block(page, "yaml"))
    given = ("--config-dir", "my_conf", "experiment=demo", override, "action=plan")
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *given],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT / 'src'}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "report demo" in done.stdout


@pytest.mark.parametrize(("name", "given"), [("LogPenalty", {"penalty": 0.02}), ("BlockTopK", {"k": 8})])
def test_the_sparsities_of_the_page_train(name: str, given: dict, tmp_path: Path) -> None:
    method = example("add_a_sparsity")[name](**given)
    _, figures = fit(make_run(method), PlantedSource(n_rows=3000), RunFolder(tmp_path))
    assert figures["fve_tuned"] > 0.1
    assert figures["k"] == given.get("k")
    if name == "BlockTopK":
        assert figures["l0"] == pytest.approx(8, rel=0.2)


def test_the_option_file_of_the_page_is_the_class_s_settings() -> None:
    written = yaml.safe_load(block("add_a_sparsity", "yaml"))
    assert written.pop("_target_") == "my_sparsity.LogPenalty"
    assert example("add_a_sparsity")["LogPenalty"](**written).epsilon == written["epsilon"]


def test_the_annotator_of_the_page_labels_a_job(tmp_path: Path) -> None:
    settings = example("add_an_annotator")["Peaks"]()
    asked = campaign(settings, tmp_path, 60)
    found = list(asked.annotator(scheme()).annotate(asked.subjects))
    assert [answer.key for answer in found] == [subject.key for subject in asked.subjects]
    assert {answer.state for answer in found} == {"ok"}
    told = [(answer.category, scheme()[i % 30].name) for i, answer in enumerate(found)]
    right = [given == planted for given, planted in told if given != OTHER]
    assert len(right) > 30
    assert sum(right) / len(right) > 0.9
    assert "lexical" in asked.variants(scheme())
    keywords = asked.induce(sizes=(1, 2, 4))
    assert keywords["classes"]


def test_the_annotator_of_the_page_goes_through_its_stages(tmp_path: Path) -> None:
    ours = finished(tmp_path)
    asked = experiment(tmp_path).model_copy(update={"annotator": example("add_an_annotator")["Peaks"]()})
    steps = {step.stage: step for step in plan(asked)}
    assert steps["documents"].key == {step.stage: step for step in plan(ours)}["documents"].key
    for stage in ("annotate", "compare"):
        make(steps[stage], asked)
    found = read_json(steps["annotate"].folder(asked.store) / "annotate.json")
    assert found["answered_by"].keys() == {"peaks"}
    assert steps["annotate"].inputs.identity()["annotator"]["settings"] == "example.Peaks"
    told = read_json(steps["compare"].folder(asked.store) / "comparison.json")
    assert told["n_labelled"] == {"toy_pt_it": 12, "toy_pt_simpo": 12}


def test_the_study_of_the_page_is_planned_at_its_size_and_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_study.py").write_text(block("add_a_study", "python"))
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "draws.yaml").write_text(block("add_a_study", "yaml"))
    monkeypatch.syspath_prepend(tmp_path)
    planned = {}
    for size in ("ci", "toy"):
        given = (f"hydra.searchpath=[file://{tmp_path}]", "experiment=draws", f"size={size}")
        asked = composed_experiment(*given)
        planned[size] = plan(asked)[-1].inputs
        assert asked.results.name == f"draws_{size}"
    assert planned["ci"].runs == ("draws_500", "draws_1000")
    assert planned["toy"].runs == ("draws_500", "draws_1000", "draws_5000")
    runs = {name: write_run(tmp_path / name, {"pt_it": Counter()}) for name in planned["ci"].runs}
    answer = planned["ci"].study.analyse(runs, {}).answer
    assert answer.startswith("The number of draws does not change the exclusive count")


def test_the_stage_of_the_page_is_planned_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_stage.py").write_text(block("add_a_stage", "python"))
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "lengths.yaml").write_text(block("add_a_stage", "yaml"))
    monkeypatch.syspath_prepend(tmp_path)
    given = (f"hydra.searchpath=[file://{tmp_path}]", "experiment=lengths", "size=ci")
    steps = {step.stage: step for step in plan(composed_experiment(*given))}
    lengths = steps["lengths"]
    assert {role: parent.stage for role, parent in lengths.parents.items()} == {"tokens": "tokens"}
    tokens, draft = tmp_path / "tokens", tmp_path / "draft"
    for folder in (tokens, draft):
        folder.mkdir()
    write_manifest(tokens, {"counts": {"n_tokens": 600, "n_documents": 4}})
    counts = lengths.definition.run(lengths.inputs, {"tokens": tokens}, draft, Runtime())
    assert counts == {"mean": 150}
    answer = steps["study"].inputs.study.analyse({}, {"lengths": draft}).answer
    assert answer == "A document has 150 tokens on average."


def test_the_table_of_steps_agrees_with_the_stages() -> None:
    text = (ROOT / "README.md").read_text()
    rows = re.findall(r"^\| (\w+)(?: \(.*?\))? \| .*? \| (.*?) \| .*? \|$", text.split("| step |")[1], re.M)
    assert len(rows) > 8
    assert dict(rows) == {name: protocol.stage(name).writes for name, _ in rows}


def test_every_kind_of_input_names_a_test_that_exists() -> None:
    page = (ROOT / "src/crossdiff/docs/inputs.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| Kind")]
    assert len(rows) > 25
    assert [row for row in rows if not re.search(r"`tests/\w[\w/]*\.py`[^|]*\|$", row)] == []
    named = set(re.findall(r"tests/\w[\w/]*\.py", page))
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []
