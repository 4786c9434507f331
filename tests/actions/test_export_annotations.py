"""`action=export export.what=annotations` writes the answers, and the ledger where requests were sent."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from crossdiff.actions import export
from crossdiff.actions.export_annotations import _write_csv
from crossdiff.io.tables import write_jsonl
from tests.finished_annotation import experiment, finished
from tests.messages_server import KEY, MessagesServer


def test_answers_leave_as_json_lines_and_as_csv(tmp_path: Path) -> None:
    asked = ("action=export", "export.what=annotations", f"export.folder={tmp_path}/out")
    export.perform([finished(tmp_path, *asked)])
    (path,) = (tmp_path / "out").iterdir()
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert path.name == "toy_pt_it_vs_toy_pt_simpo_1.annotations.jsonl"
    assert {row["pair"] for row in rows} == {"toy_pt_it", "toy_pt_simpo"}
    export.perform([experiment(tmp_path, *asked, "export.format=csv")])
    table = pd.read_csv(path.with_suffix(".csv"))
    assert len(table) == len(rows)
    assert json.loads(table["votes"][0]) == rows[0]["votes"]


def test_no_cell_is_a_formula(tmp_path: Path) -> None:
    label = '=HYPERLINK("http://x")'
    row = {"latent": 7, "label": label, "description": "@x", "confidence": -1, "votes": {"a": 1}}
    write_jsonl([row], tmp_path / "a.jsonl")
    _write_csv(tmp_path / "a.jsonl", tmp_path / "a.csv")
    found = pd.read_csv(tmp_path / "a.csv").iloc[0].to_dict()
    assert found == row | {"label": f"'{label}", "description": "'@x", "votes": '{"a": 1}'}


def test_the_ledger_comes_along_without_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    with MessagesServer() as server:
        asked = finished(
            tmp_path, "annotator=claude", f"annotator.base_url={server.address}", "annotator.n_votes=1",
            "annotator.scores=[]", "action=export", "export.what=annotations",
            f"export.folder={tmp_path}/out",
        )  # fmt: skip
        export.perform([asked])
    rows = [json.loads(line) for line in (tmp_path / "out" / "ledger.jsonl").read_text().splitlines()]
    assert len(rows) == len(server.bodies)
    assert all(row["reply"]["content"] for row in rows)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    assert not [path for path in written if KEY.encode() in path.read_bytes()]


def test_an_unfinished_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not finished"):
        export.perform([experiment(tmp_path, "action=export", "export.what=annotations")])
