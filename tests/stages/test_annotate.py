"""The annotate stage on planted documents of two pairs."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import pytest

from crossdiff.annotation.settings import N_SWAPPED, Lexical
from crossdiff.io.tables import read_json
from crossdiff.settings import Runtime
from crossdiff.stages import annotate
from crossdiff.taxonomy.scheme import PaperTaxonomy, load_taxonomy
from tests.annotation.campaign import settings
from tests.messages_server import KEY, MessagesServer

IT = ["translation"] * 6 + ["mathematics"] * 6
SIMPO = ["translation"] * 3 + ["storytelling"] * 9
QUIET = Runtime(progress=False)


def annotated(documents_folder, draft: Path, *, it: list[str] = IT, simpo: list[str] = SIMPO) -> dict:
    draft.mkdir()
    inputs = annotate.AnnotateInputs(
        annotator=Lexical(), taxonomy=PaperTaxonomy(), pairs=("pt_it", "pt_simpo"), seed=0
    )
    parents = {"documents_pt_it": documents_folder("pt_it", it)}
    parents["documents_pt_simpo"] = documents_folder("pt_simpo", simpo)
    return annotate.run(inputs, parents, draft, QUIET)


def test_every_selected_latent_gets_a_row_with_its_planted_category(documents_folder, tmp_path: Path) -> None:
    summary = annotated(documents_folder, tmp_path / "annotate")
    lines = (tmp_path / "annotate" / "annotations.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    exclusive = [row for row in rows if row["role"] == "exclusive_tuned"]
    assert [row["category"] for row in exclusive if row["pair"] == "pt_it"] == IT
    assert [row["category"] for row in exclusive if row["pair"] == "pt_simpo"] == SIMPO
    assert exclusive[0]["class"] == "linguistic_multilingual"
    assert set(exclusive[0]) >= {"version", "label", "votes", "confidence", "keywords", "evidence", "scores"}
    assert summary["n_subjects"] == len(rows) == 24 + N_SWAPPED
    assert summary["share_other"] == 0  # the swapped controls are other
    assert read_json(tmp_path / "annotate" / "annotate.json")["warnings"] == []


def test_the_taxonomy_is_frozen_beside_the_annotations(documents_folder, tmp_path: Path) -> None:
    annotated(documents_folder, tmp_path / "annotate")
    frozen = load_taxonomy(tmp_path / "annotate" / "taxonomy.yaml")
    recorded = read_json(tmp_path / "annotate" / "annotate.json")
    assert frozen.hash == PaperTaxonomy().load().hash == recorded["taxonomy"]["hash"]


def test_swapped_controls_do_not_come_out_as_a_category(documents_folder, tmp_path: Path) -> None:
    many = [category.name for category in PaperTaxonomy().load().categories]
    annotated(documents_folder, tmp_path / "annotate", it=many, simpo=many)
    controls = read_json(tmp_path / "annotate" / "annotate.json")["controls"]["control_swapped"]
    assert sum(controls.get(name, 0) for name in ("other", "uninterpretable")) >= 9


def test_an_empty_exclusive_set_still_gives_files(documents_folder, tmp_path: Path) -> None:
    summary = annotated(documents_folder, tmp_path / "annotate", it=[], simpo=[])
    assert summary == {"n_subjects": 0, "n_answered": 0, "share_other": None, "cost_usd": 0}
    assert (tmp_path / "annotate" / "annotations.jsonl").read_text(encoding="utf-8") == ""


def test_a_run_where_nothing_was_answered_is_an_error(documents_folder, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    parents = {"documents_pt_it": documents_folder("pt_it", ["translation"] * 3)}
    (tmp_path / "draft").mkdir()
    runtime = Runtime(store=tmp_path, progress=False)
    with MessagesServer() as server:
        inputs = annotate.AnnotateInputs(
            annotator=settings("claude", server.address, max_usd=0.0),
            taxonomy=PaperTaxonomy(),
            pairs=("pt_it",),
            seed=0,
        )
        with pytest.raises(ValueError, match=r"nothing was answered: \d+ skipped_budget"):
            annotate.run(inputs, parents, tmp_path / "draft", runtime)


def test_after_a_run_the_ledgers_file_alone_holds_every_reply(
    documents_folder, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    parents = {"documents_pt_it": documents_folder("pt_it", ["translation"] * 2)}
    (tmp_path / "draft").mkdir()
    gc.disable()  # a connection that nobody closes would be closed by the collector at any moment
    try:
        with MessagesServer() as server:
            asked, taxonomy = settings("claude", server.address, n_votes=1), PaperTaxonomy()
            inputs = annotate.AnnotateInputs(annotator=asked, taxonomy=taxonomy, pairs=("pt_it",), seed=0)
            annotate.run(inputs, parents, tmp_path / "draft", Runtime(store=tmp_path, progress=False))
        assert [path.name for path in tmp_path.glob("ledger*")] == ["ledger.sqlite"]
    finally:
        gc.enable()


def test_two_runs_write_the_same_bytes(documents_folder, tmp_path: Path) -> None:
    annotated(documents_folder, tmp_path / "first")
    inputs = annotate.AnnotateInputs(
        annotator=Lexical(), taxonomy=PaperTaxonomy(), pairs=("pt_it", "pt_simpo"), seed=0
    )
    parents = {f"documents_{pair}": tmp_path / f"documents_{pair}" for pair in ("pt_simpo", "pt_it")}
    (tmp_path / "second").mkdir()
    annotate.run(inputs, parents, tmp_path / "second", QUIET)
    for name in ("annotations.jsonl", "taxonomy.yaml", "annotate.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_a_drifted_latent_is_labelled_and_enters_no_count_of_exclusive_ones(
    documents_folder, tmp_path: Path
) -> None:
    folder = documents_folder("pt_it", ["translation"] * 4 + ["mathematics"])
    selection = read_json(folder / "selection.json")
    selection["latents"][-1]["role"] = "drifted"
    (folder / "selection.json").write_text(json.dumps(selection))
    (tmp_path / "draft").mkdir()
    inputs = annotate.AnnotateInputs(annotator=Lexical(), taxonomy=PaperTaxonomy(), pairs=("pt_it",), seed=0)
    annotate.run(inputs, {"documents_pt_it": folder}, tmp_path / "draft", QUIET)
    rows = [json.loads(line) for line in (tmp_path / "draft" / "annotations.jsonl").read_text().splitlines()]
    assert [row["category"] for row in rows if row["role"] == "drifted"] == ["mathematics"]
    variants = (tmp_path / "draft" / "variants.jsonl").read_text().splitlines()
    assert {json.loads(line)["latent"] for line in variants} == {0, 1, 2, 3}
    summary = read_json(tmp_path / "draft" / "annotate.json")
    assert summary["roles"]["drifted"] == 1
    assert summary["share_other"] == 0
