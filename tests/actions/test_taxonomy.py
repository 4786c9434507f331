"""`action=taxonomy`: show, induce, extend; a frozen file goes back into a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossdiff.actions import taxonomy
from crossdiff.pipeline.plan import plan
from crossdiff.taxonomy.scheme import PaperTaxonomy, load_taxonomy
from tests.finished_annotation import experiment, finished


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
    with pytest.raises(ValueError, match="run it first"):
        taxonomy.perform([experiment(tmp_path, "action=taxonomy", "freeze.mode=extend")])
    with pytest.raises(ValueError, match="made by the run"):
        taxonomy.perform([experiment(tmp_path, "action=taxonomy", "taxonomy=induced")])
