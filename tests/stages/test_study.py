"""The last step of a study writes its page, its summary and its tables."""

import json
from collections import Counter
from pathlib import Path

import pytest

from crossdiff.settings import Runtime
from crossdiff.stages.study import StudyInputs, run
from crossdiff.studies.layers import Layers
from tests.study_products import write_run
from tests.test_command_line import ROOT, crossdiff

STUDIES = (
    "layers", "direct", "similarity_ladder", "ablation", "corpus", "behaviour", "paper", "paper_10m",
    "llama3", "steering", "seed_null", "frozen_decoder", "two_tunings",
)  # fmt: skip
WITHOUT_RUNS = ("causal", "several", "self_diff", "planted", "contenders", "outputs")
"""Studies that stand on steps of their own, not on runs with a report each."""


def test_a_study_leaves_page_summary_and_tables(tmp_path) -> None:
    labels = {"pt_it": Counter({"mathematics": 12}), "pt_simpo": Counter({"mathematics": 3, "role_play": 9})}
    parents = {f"run_layer_{n}": write_run(tmp_path / f"layer_{n}", labels).folder for n in (1, 2)}
    inputs = StudyInputs(title="layers", study=Layers(layers=(1, 2)), runs=("layer_1", "layer_2"))
    draft = tmp_path / "draft"
    draft.mkdir()
    found = run(inputs, parents, draft, Runtime())
    summary = json.loads((draft / "summary.json").read_text())
    assert summary["answer"] == found["answer"]
    assert set(summary["runs"]) == {"layer_1", "layer_2"}
    assert summary["numbers"]["judged"] == 2
    assert "keep their sign" in (draft / "report.html").read_text()
    assert (draft / "changes.csv").read_text().startswith("Category,layer 1,layer 2")
    assert inputs.model_dump(mode="json")["study"]["layers"] == [1, 2]


@pytest.mark.study
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("name", [*STUDIES, *WITHOUT_RUNS])
def test_a_study_ends_in_an_answer(name: str, tmp_path: Path) -> None:
    """Organism, tokens and harvests are those of `make demo`, in the store beside it."""
    done = crossdiff(
        f"experiment={name}", "size=ci", f"store={ROOT}/store", f"results_dir={tmp_path}", "progress=false",
        timeout=1500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == f"report: {tmp_path}/report.html"
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["answer"].endswith(".")
    assert summary["numbers"]
    assert bool(summary["runs"]) == (name in STUDIES)
