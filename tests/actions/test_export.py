"""What `export.what` names becomes files: tables, figures, a crosscoder, answers with their ledger."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from crossdiff import actions, config
from crossdiff.actions import export
from crossdiff.actions.export import _write_csv
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.io.artifacts import MANIFEST
from crossdiff.io.interop import load_dictionary_learning
from crossdiff.io.tables import write_jsonl
from crossdiff.pipeline.plan import plan
from tests import composed, finished_annotation, finished_demo
from tests.messages_server import KEY, MessagesServer


@pytest.mark.parametrize("table_format", ["csv", "tex"])
def test_tables_are_exported_for_a_paper(tmp_path: Path, capsys, table_format: str) -> None:
    asked = finished_demo.experiment(
        tmp_path, "action=export", "export.what=tables", f"export.format={table_format}"
    )
    finished_demo.finished(asked, tmp_path / "invented")
    assert actions.perform([asked]) == 0
    folder = tmp_path / "export" / "demo_2"
    names = {path.name for path in folder.iterdir()}
    assert f"changes.{table_format}" in names
    told = capsys.readouterr().out
    assert told == f"tables: {len(names)} {table_format} files in {folder}\n"


@pytest.mark.browser
def test_every_figure_is_exported_as_an_image(tmp_path: Path) -> None:
    pytest.importorskip("kaleido", reason="kaleido draws images")
    asked = finished_demo.experiment(tmp_path, "action=export", "export.what=figures", "export.format=svg")
    finished_demo.finished(asked, tmp_path / "invented")
    assert actions.perform([asked]) == 0
    images = sorted((tmp_path / "export" / "demo_2").glob("*.svg"))
    assert {"changes.svg", "nu-toy_pt_it.svg", "delta-norm-toy_pt_simpo.svg"} <= {
        path.name for path in images
    }
    assert all(path.read_bytes().startswith(b"<svg") for path in images)


def training(folder: Path, *overrides: str) -> config.Experiment:
    given = [
        "model_pair=toy_pt_it", "corpus=toy", "layer=1", "action=export", "export.what=checkpoint",
        f"store={folder}/store", f"export.folder={folder}/export", *overrides,
    ]  # fmt: skip
    return composed.experiment(*given)


def trained(asked: config.Experiment, *, threshold: float = 2.0) -> Crosscoder:
    """A crosscoder where the finished train step of `asked` has it."""
    step = next(step for step in plan(asked) if step.stage == "train")
    made = Crosscoder(
        DictionarySettings(n_latents=40), n_models=2, d_model=6, metadata={"training": {"k": 5}}
    )
    made.initialise_(torch.Generator().manual_seed(0))
    made.normaliser.scale.fill_(0.7)
    made.normaliser.mean.fill_(0.1)
    made.threshold.fill_(threshold)
    made.save(step.folder(asked.store) / "crosscoder")
    (step.folder(asked.store) / MANIFEST).write_text("{}")
    return made


def test_an_exported_checkpoint_encodes_as_the_crosscoder_it_came_from(tmp_path: Path, capsys) -> None:
    asked = training(tmp_path, "export.format=dictionary_learning")
    made, x = trained(asked), torch.randn(20, 2, 6, generator=torch.Generator().manual_seed(1))
    assert actions.perform([asked]) == 0
    folder = tmp_path / "export" / "toy_pt_it_1"
    assert capsys.readouterr().out == f"checkpoint: {folder}\n"
    names = {"model.safetensors", "model.pt", "config.json", "README.md"}
    assert {path.name for path in folder.iterdir()} == names
    card = (folder / "README.md").read_text()
    assert "organism:pt, organism:it" in card
    assert "output of block 1" in card
    assert "None was chosen here" in card
    found = load_dictionary_learning(folder)
    code = made.encode(x)
    assert 0 < int((code > 0).sum()) < code.numel()
    torch.testing.assert_close(found.encode(x), code, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.decode(code), made.decode(code), rtol=1e-5, atol=1e-5)


def test_our_own_format_keeps_everything_and_runs_of_one_pair_do_not_collide(tmp_path: Path, capsys) -> None:
    runs = [training(tmp_path, "export.format=crossdiff", f"seed={seed}") for seed in (0, 1)]
    for number, asked in enumerate(runs):
        trained(asked, threshold=1.0 + number)
    assert actions.perform(runs) == 0
    folders = [line.removeprefix("checkpoint: ") for line in capsys.readouterr().out.splitlines()]
    assert [float(Crosscoder.load(folder).threshold) for folder in folders] == [1.0, 2.0]
    assert Crosscoder.load(folders[0]).metadata == {"training": {"k": 5}}


def test_an_untrained_pair_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"train toy_pt_it .*is not finished.*action=run first"):
        actions.perform([training(tmp_path)])


def test_a_hub_upload_gets_one_crosscoder_in_our_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """The hub itself is out of reach of a test; what is sent there is checked in core/test_checkpoint."""
    sent = []
    monkeypatch.setattr(
        "crossdiff.core.checkpoint.push", lambda folder, hub_id: sent.append((folder.name, hub_id)) or "url"
    )
    runs = [
        training(tmp_path, "export.format=crossdiff", "export.hub_id=me/it", f"seed={seed}")
        for seed in (0, 1)
    ]
    for asked in runs:
        trained(asked)
    assert actions.perform(runs[:1]) == 0
    assert sent == [("toy_pt_it_1", "me/it")]
    assert capsys.readouterr().out == "checkpoint: url\n"
    with pytest.raises(ValueError, match=r"export.hub_id names one repository, and this command has 2"):
        actions.perform(runs)


def test_answers_leave_as_json_lines_and_as_csv(tmp_path: Path) -> None:
    asked = ("action=export", "export.what=annotations", f"export.folder={tmp_path}/out")
    export.perform([finished_annotation.finished(tmp_path, *asked)])
    (path,) = (tmp_path / "out").iterdir()
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert path.name == "toy_pt_it_vs_toy_pt_simpo_1.annotations.jsonl"
    assert {row["pair"] for row in rows} == {"toy_pt_it", "toy_pt_simpo"}
    export.perform([finished_annotation.experiment(tmp_path, *asked, "export.format=csv")])
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
        asked = finished_annotation.finished(
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
        export.perform([finished_annotation.experiment(tmp_path, "action=export", "export.what=annotations")])
