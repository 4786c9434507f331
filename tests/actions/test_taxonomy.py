"""`action=taxonomy`: show, induce, extend; a frozen file goes back into a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from crossdiff.actions import taxonomy
from crossdiff.pipeline.plan import plan
from crossdiff.taxonomy.scheme import PaperTaxonomy, load_taxonomy
from tests.actions.test_run import typed
from tests.finished_annotation import asked_for, experiment, finished


def test_show_names_hash_definitions_and_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taxonomy.perform([experiment(tmp_path, "action=taxonomy")])
    before = capsys.readouterr().out
    assert PaperTaxonomy().load().hash in before
    assert "latents]" not in before
    taxonomy.perform([finished(tmp_path, "action=taxonomy")])
    assert "translation [9 latents]" in capsys.readouterr().out


def test_an_induced_taxonomy_is_frozen_never_overwritten_and_can_be_used(tmp_path: Path) -> None:
    finished(tmp_path)
    path = tmp_path / "own.yaml"
    asked = experiment(tmp_path, "action=taxonomy", "freeze.mode=induce", f"freeze.file={path}")
    taxonomy.perform([asked])
    frozen = load_taxonomy(path)
    assert 1 < len(frozen.categories) <= 30
    with pytest.raises(ValueError, match="never overwritten"):
        taxonomy.perform([asked])
    used = finished(tmp_path, "taxonomy=file", f"taxonomy.path={path}")
    (key,) = [step.key for step in plan(used) if step.stage == "annotate"]
    (other,) = [step.key for step in plan(experiment(tmp_path)) if step.stage == "annotate"]
    assert key != other


def test_an_extension_keeps_the_old_and_has_a_new_hash(tmp_path: Path) -> None:
    from tests import finished_annotation

    finished(tmp_path)
    path = tmp_path / "narrow.yaml"
    narrow = PaperTaxonomy().load().model_dump(mode="json")
    narrow["classes"] = narrow["classes"][:1]
    path.write_text(str(narrow), encoding="utf-8")
    chosen = ("taxonomy=file", f"taxonomy.path={path}")
    finished_annotation.finished(tmp_path, *chosen)
    wider = tmp_path / "wider.yaml"
    settings = ("action=taxonomy", "freeze.mode=extend", "freeze.n_new=4", f"freeze.file={wider}")
    taxonomy.perform([experiment(tmp_path, *chosen, *settings)])
    found, old = load_taxonomy(wider), load_taxonomy(path)
    assert found.classes[:-1] == old.classes
    assert 1 <= len(found.classes[-1].categories) <= 4
    assert found.hash != old.hash
    assert old.hash in found.provenance


def test_what_cannot_be_shown_or_extended_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give action=run first"):
        taxonomy.perform([experiment(tmp_path, "action=taxonomy", "freeze.mode=extend")])
    with pytest.raises(ValueError, match="made by the run"):
        taxonomy.perform([experiment(tmp_path, "action=taxonomy", "taxonomy=induced")])


def _twice(content: dict[str, Any]) -> None:
    content["classes"][1]["categories"].append(content["classes"][0]["categories"][0])


def _empty(content: dict[str, Any]) -> None:
    content["classes"][1]["categories"] = []


def _unnamed(content: dict[str, Any]) -> None:
    content["classes"][0]["categories"][0]["name"] = ""


def _edited_after_assignment(content: dict[str, Any]) -> None:
    content["hash"] = PaperTaxonomy().load().hash
    content["classes"][0]["categories"][0]["definition"] += " And more."


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (_twice, ["more than once"]),
        (_empty, ["has no category"]),
        (_unnamed, ["empty name or definition"]),
        (_edited_after_assignment, ["was changed", "assign all latents again"]),
    ],
)
def test_a_spoiled_file_stops_the_command_before_anything_runs(
    spoil: Callable[[dict[str, Any]], None],
    parts: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    content = PaperTaxonomy().load().model_dump(mode="json")
    spoil(content)
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    assert typed(monkeypatch, *asked_for(tmp_path), "taxonomy=file", f"taxonomy.path={path}") == 2
    told = capfd.readouterr().err
    assert told.count("error: ") == 1
    assert "Traceback" not in told
    assert [part for part in [str(path), *parts] if part not in told] == [], told
    assert not (tmp_path / "store").exists()


def test_a_taxonomy_changed_after_assignment_is_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its hash is in the key: old labels are never counted under new categories, nor old ratings."""
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(PaperTaxonomy().load().model_dump(mode="json")), encoding="utf-8")
    own = (*asked_for(tmp_path), "taxonomy=file", f"taxonomy.path={path}", "action=validate")
    asked = finished(tmp_path, "taxonomy=file", f"taxonomy.path={path}")
    assert typed(monkeypatch, *own, "validate.n=12") == 0
    key = plan(asked)[-1].key
    path.write_text(path.read_text(encoding="utf-8").replace("Declining", "Refusing"), encoding="utf-8")
    assert plan(experiment(tmp_path, "taxonomy=file", f"taxonomy.path={path}"))[-1].key != key
    assert typed(monkeypatch, *own, "validate.mode=import", "validate.file=x.csv") == 2
    assert "is not finished" in capfd.readouterr().err
    finished(tmp_path, "taxonomy=file", f"taxonomy.path={path}")
    assert typed(monkeypatch, *own, "validate.mode=import", "validate.file=x.csv") == 2
    assert "has changed since the export; export a new sheet" in capfd.readouterr().err
