"""Tables and figures of a finished run as files."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossdiff import actions
from tests.finished_demo import experiment, finished


@pytest.mark.parametrize("table_format", ["csv", "tex"])
def test_tables_are_exported_for_a_paper(tmp_path: Path, capsys, table_format: str) -> None:
    asked = experiment(tmp_path, "action=export", "export.what=tables", f"export.format={table_format}")
    finished(asked, tmp_path / "invented")
    assert actions.perform([asked]) == 0
    folder = tmp_path / "export" / "demo_2"
    names = {path.name for path in folder.iterdir()}
    assert f"changes.{table_format}" in names
    told = capsys.readouterr().out
    assert told == f"tables: {len(names)} {table_format} files in {folder}\n"


@pytest.mark.browser
def test_every_figure_is_exported_as_an_image(tmp_path: Path) -> None:
    pytest.importorskip("kaleido", reason="kaleido draws images")
    asked = experiment(tmp_path, "action=export", "export.what=figures", "export.format=svg")
    finished(asked, tmp_path / "invented")
    assert actions.perform([asked]) == 0
    images = sorted((tmp_path / "export" / "demo_2").glob("*.svg"))
    assert {"changes.svg", "nu-toy_pt_it.svg", "delta-norm-toy_pt_simpo.svg"} <= {
        path.name for path in images
    }
    assert all(path.read_bytes().startswith(b"<svg") for path in images)
