"""`action=validate` on finished artifacts: the sheet goes out, the ratings come back, the page shows both."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from crossdiff.actions import validate
from crossdiff.io.tables import read_json
from crossdiff.taxonomy.scheme import PaperTaxonomy
from tests.actions.test_run import typed
from tests.finished_annotation import asked_for, experiment, finished
from tests.report.test_browser import opened

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
    with pytest.raises(ValueError, match="changed since the export"):
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


def rate(page: Any, answers: dict[str, str], *, unrated: int) -> None:
    """Fill the sheet in the order of the page as a person does, by the titles that the lists show."""
    titles = {category.name: category.title for category in PaperTaxonomy().load().categories}
    items = page.locator("article")
    assert items.count() == len(answers)
    page.get_by_label("Your name").fill("Ann B.")
    for number, category in enumerate(answers.values()):
        if number == unrated:
            continue
        box = items.nth(number)
        assert box.locator("mark").count() > 0
        box.get_by_label("Category").select_option(label=titles[category])
        assert box.get_attribute("class") == "done"
    items.nth(0).get_by_label("Note").fill('=1+1, "quoted"')


@pytest.mark.browser
def test_a_person_rates_in_the_browser_and_the_download_is_imported(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = finished(tmp_path, *EXPORT)
    assert typed(monkeypatch, *asked_for(tmp_path), *EXPORT) == 0
    folder = asked.results / "validation"
    key = read_json(folder / "key.json")["items"]
    with opened(browser, (folder / "sheet.html").resolve()) as page:
        shown = page.evaluate("JSON.parse(document.getElementById('content').textContent).items")
        answers = {item["item"]: key[item["item"]]["category"] for item in shown}
        wrong = next(i for i, category in enumerate(answers.values()) if category != "storytelling")
        said = {
            item: "storytelling" if number == wrong else category
            for number, (item, category) in enumerate(answers.items())
        }
        rate(page, said, unrated=len(said) - 1)
        assert page.inner_text("#progress").startswith("11 of 12 rated")
        asked_before_leaving: list[str] = []
        page.on("dialog", lambda dialog: (asked_before_leaving.append(dialog.type), dialog.accept()))
        page.reload()
        assert asked_before_leaving == ["beforeunload"]
        assert page.inner_text("#progress").startswith("11 of 12 rated")
        assert page.locator("article.done").count() == 11
        with page.expect_download() as started:
            page.get_by_role("button", name="Download").click()
        assert started.value.suggested_filename == "ratings_Ann_B_.csv"
        sheet = folder / started.value.suggested_filename
        started.value.save_as(sheet)
        page.reload()
        assert asked_before_leaving == ["beforeunload"]
    assert "'=1+1" in sheet.read_text(encoding="utf-8")
    capfd.readouterr()
    assert typed(monkeypatch, *asked_for(tmp_path), *IMPORT, f"validate.file={sheet}") == 0
    told = capfd.readouterr().out
    assert "Krippendorff's alpha" in told
    found = read_json(folder / "agreement.json")
    assert found["unrated"] == {"ratings_Ann_B_": 1}
    person = found["levels"]["category"]["raters"]["ratings_Ann_B_"]
    assert person["n"] == 11
    kept = list(said.items())[:-1]
    assert person["kappa"]["value"] == pytest.approx(
        cohens_kappa([category for _, category in kept], [answers[item] for item, _ in kept])
    )
    assert "Human check" in (asked.results / "report.html").read_text(encoding="utf-8")


def cohens_kappa(person: list[str], annotator: list[str]) -> float:
    """(agreement - chance) / (1 - chance), by hand (Cohen 1960)."""
    n = len(person)
    agreed = sum(a == b for a, b in zip(person, annotator, strict=True)) / n
    chance = sum(person.count(c) * annotator.count(c) for c in set(person)) / n**2
    return (agreed - chance) / (1 - chance)
