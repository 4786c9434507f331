from __future__ import annotations

import csv
from pathlib import Path

import pytest

from crossdiff.report import export
from crossdiff.report.sources import Sources
from crossdiff.report.tables import plain


def test_tables_are_csv_files_with_plain_numbers(sources: Sources, tmp_path: Path) -> None:
    paths = export.tables_of(sources, tmp_path, table_format="csv")
    names = {path.stem for path in paths}
    assert {"changes", "nu-pt_it", "set_aside", "annotation", "steps"} <= names
    rows = list(csv.DictReader((tmp_path / "nu-pt_it.csv").open()))
    assert len(rows) == 15
    assert float(rows[0]["nu error"]) < 0.2


def test_latex_tables_escape_what_latex_would_run(tmp_path: Path) -> None:
    table = plain(["Category", "50 % & more"], [("a_b \\input{x}", 0.5)], numeric=[1])
    text = export.write_tex(table, tmp_path / "t.tex").read_text()
    assert text.splitlines()[1:] == [
        r"\begin{tabular}{lr}", r"\toprule", r"Category & 50 \% \& more \\", r"\midrule",
        r"a\_b \textbackslash{}input\{x\} & 0.5 \\", r"\bottomrule", r"\end{tabular}",
    ]  # fmt: skip


def test_a_missing_browser_names_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSDIFF_CHROMIUM", "/nowhere/chromium")
    with pytest.raises(ValueError, match=r"/nowhere/chromium was found; install one .*CROSSDIFF_CHROMIUM"):
        export.browser()


@pytest.mark.browser
@pytest.mark.parametrize("image_format", ["png", "svg"])
def test_figures_become_image_files(sources: Sources, tmp_path: Path, image_format: str) -> None:
    from crossdiff.report import figures

    pytest.importorskip("kaleido", reason="kaleido draws images")
    drawn = {"changes": figures.changes(sources.comparison.deltas)} if sources.comparison else {}
    (path,) = export.write_figures(drawn, tmp_path, image_format=image_format)
    head = path.read_bytes()[:4]
    assert head == (b"\x89PNG" if image_format == "png" else b"<svg")
