"""`action=validate` on finished artifacts: the sheet goes out, the ratings come back, the page shows both."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from crossdiff.actions import validate
from crossdiff.io.tables import read_json
from tests.finished_annotation import experiment, finished

EXPORT = ("action=validate", "validate.n=12")
IMPORT = ("action=validate", "validate.mode=import")


def test_export_then_import_reaches_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = finished(tmp_path, *EXPORT)
    assert validate.perform([asked]) == 0
    folder = asked.results / "validation"
    assert {path.name for path in folder.iterdir()} == {"sheet.csv", "sheet.html", "key.json"}
    key = read_json(folder / "key.json")["items"]
    assert len(key) == 12
    sheet = folder / "ann.csv"
    with sheet.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([["item", "category"], *([i, a["category"]] for i, a in key.items())])
    back = experiment(tmp_path, *IMPORT, f"validate.file={sheet}")
    assert validate.perform([back]) == 0
    assert "Cohen's kappa 1.00" in capsys.readouterr().out
    assert read_json(folder / "agreement.json")["n_items"] == 12
    assert "Human check" in (asked.results / "report.html").read_text(encoding="utf-8")


def test_two_people_give_two_files_and_latents_can_be_rated(tmp_path: Path) -> None:
    asked = finished(tmp_path, *EXPORT, "validate.unit=latent")
    validate.perform([asked])
    folder = asked.results / "validation"
    key = read_json(folder / "key.json")
    for name, category in (("ann", None), ("bo", "other")):
        lines = [f"{item},{category or answer['category']}" for item, answer in key["items"].items()]
        (folder / f"{name}.csv").write_text("item,category\n" + "\n".join(lines) + "\n", encoding="utf-8")
    back = experiment(tmp_path, *IMPORT, f"validate.file=[{folder}/ann.csv,{folder}/bo.csv]")
    validate.perform([back])
    found = read_json(folder / "agreement.json")
    assert found["unit"] == "latent"
    assert set(found["levels"]["class"]["raters"]) == {"ann", "bo"}


def test_a_taxonomy_changed_after_the_export_is_noticed(tmp_path: Path) -> None:
    asked = finished(tmp_path, *EXPORT)
    validate.perform([asked])
    path = asked.results / "validation" / "key.json"
    path.write_text(json.dumps(read_json(path) | {"taxonomy": "0" * 16}), encoding="utf-8")
    with pytest.raises(ValueError, match="changed after the export"):
        validate.perform([experiment(tmp_path, *IMPORT, "validate.file=x.csv")])


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not finished"):
        validate.perform([experiment(tmp_path, *EXPORT)])
    back = finished(tmp_path, *IMPORT)
    with pytest.raises(ValueError, match="no exported sheet"):
        validate.perform([back])
    validate.perform([experiment(tmp_path, *EXPORT)])
    with pytest.raises(ValueError, match="needs validate.file"):
        validate.perform([back])
