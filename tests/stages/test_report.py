from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from crossdiff.io.tables import read_json, read_table
from crossdiff.settings import Runtime
from crossdiff.stages import report
from tests import report_artifacts

PAIRS = ("pt_it", "pt_simpo")


def _run(store, draft: Path, **changes):
    draft.mkdir()
    inputs = report.ReportInputs(title="Toy", pairs=store.pairs, **changes)
    return report.run(inputs, store.parents, draft, Runtime())


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("comparison")
    store = report_artifacts.build(root / "store")
    counts = _run(store, root / "draft", reference="pt_it", treatment="pt_simpo")
    assert counts["n_pairs"] == 2
    return root / "draft"


def test_a_comparison_leaves_page_summary_and_products(comparison: Path) -> None:
    names = {path.name for path in comparison.iterdir()}
    own = {f"latents.{pair}.parquet" for pair in PAIRS} | {f"annotations.{pair}.jsonl" for pair in PAIRS}
    assert names == {"report.html", "summary.json", "deltas.csv", "taxonomy.yaml"} | own
    assert len(read_table(comparison / "latents.pt_it.parquet", kind="latents")) == 600
    assert len(pd.read_csv(comparison / "deltas.csv")) == 12


def test_annotations_are_split_by_pair(comparison: Path) -> None:
    for pair in PAIRS:
        lines = (comparison / f"annotations.{pair}.jsonl").read_text().splitlines()
        assert {json.loads(line)["pair"] for line in lines} == {pair}


def test_the_summary_counts_latents_of_the_tuned_model(comparison: Path) -> None:
    summary = read_json(comparison / "summary.json")
    assert summary["version"] == 1
    pair = summary["pairs"]["pt_it"]
    assert (pair["n_exclusive"], pair["n_exclusive_base"], pair["n_labelled"]) == (12, 3, 11)
    assert (pair["fve_base"], pair["fve_tuned"], pair["k"], pair["n_latents"]) == (0.93, 0.92, 32, 600)
    assert {"name", "group", "change"} == set(summary["comparison"]["recovered"][0])
    assert summary["comparison"]["reference"] == "pt_it"


def test_one_pair_makes_a_report_without_comparison(tmp_path: Path) -> None:
    store = report_artifacts.build(tmp_path / "store", pairs=("pt_it",))
    _run(store, tmp_path / "draft")
    assert read_json(tmp_path / "draft" / "summary.json")["comparison"] is None
    assert not (tmp_path / "draft" / "deltas.csv").exists()
    assert 'id="changes"' not in (tmp_path / "draft" / "report.html").read_text()


def test_a_pair_without_annotations_says_so(tmp_path: Path) -> None:
    store = report_artifacts.build(tmp_path / "store", pairs=("pt_it",))
    del store.parents["annotate"]
    _run(store, tmp_path / "draft")
    assert "have no annotations yet" in (tmp_path / "draft" / "report.html").read_text()
    assert read_json(tmp_path / "draft" / "summary.json")["pairs"]["pt_it"]["n_labelled"] is None
