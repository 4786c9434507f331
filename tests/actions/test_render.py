"""The report again from artifacts alone, whole or in part."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossdiff import actions
from crossdiff.io.tables import read_json
from tests import finished_annotation
from tests.actions.test_run import typed
from tests.finished_demo import experiment, finished


def test_a_page_is_rendered_from_finished_artifacts_without_running_a_step(tmp_path: Path, capsys) -> None:
    asked = experiment(tmp_path, "action=render")
    finished(asked, tmp_path / "invented")
    assert actions.perform([asked]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {tmp_path}/results/report.html"
    steps = read_json(tmp_path / "results" / "summary.json")["steps"]
    assert {row["state"] for row in steps[:-1]} == {"reused"}
    assert (steps[-1]["name"], steps[-1]["state"]) == ("report demo", "done")
    assert not (asked.store / "report").exists()


def test_what_is_not_finished_is_said_on_the_page_and_on_the_terminal(tmp_path: Path, capsys) -> None:
    asked = experiment(tmp_path, "action=render")
    finished(asked, tmp_path / "invented", without=("compare", "annotate", "scale_toy_pt_simpo"))
    assert actions.perform([asked]) == 0
    told = capsys.readouterr().out
    assert "not finished, so not on the page" in told
    assert "scale toy_pt_simpo" in told
    page = (tmp_path / "results" / "report.html").read_text()
    assert "no annotations yet" in page
    assert "The comparison of toy_pt_simpo with toy_pt_it is not finished yet" in page
    assert 'id="pair-toy_pt_simpo"' not in page


def test_nothing_finished_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing to show yet .*train toy_pt_it.* action=run first"):
        actions.perform([experiment(tmp_path, "action=render")])


@pytest.mark.parametrize("empty", finished_annotation.PAIRS)
def test_an_empty_exclusive_set_on_one_side_still_ends_in_a_page_that_says_so(
    empty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    topics = {**finished_annotation.TOPICS, empty: []}
    asked = finished_annotation.finished(tmp_path, topics=topics)
    assert typed(monkeypatch, *finished_annotation.asked_for(tmp_path), "action=render") == 0
    assert "Traceback" not in capfd.readouterr().err
    comparison = read_json(asked.results / "summary.json")["comparison"]
    assert comparison["n_labelled"][empty] == 0
    page = (asked.results / "report.html").read_text(encoding="utf-8")
    assert "no labelled exclusive latent" in page
    assert typed(monkeypatch, *finished_annotation.asked_for(tmp_path), "action=validate") == 0
