from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd
import pytest

from crossdiff.report import export
from crossdiff.report.formatting import readable
from crossdiff.report.sources import Sources
from crossdiff.report.tables import plain


def test_tables_are_csv_files_with_plain_numbers(sources: Sources, tmp_path: Path) -> None:
    paths = export.tables_of(sources, tmp_path, table_format="csv")
    names = {path.stem for path in paths}
    assert {"changes", "nu-pt_it", "set_aside", "annotation", "steps"} <= names
    rows = list(csv.DictReader((tmp_path / "nu-pt_it.csv").open()))
    assert len(rows) == 15
    assert float(rows[0]["nu error"]) < 0.2


def test_the_exported_changes_are_those_of_the_delta_table(sources: Sources, tmp_path: Path) -> None:
    assert sources.comparison is not None
    export.tables_of(sources, tmp_path, table_format="csv")
    exported = pd.read_csv(tmp_path / "changes.csv").set_index("Category")
    deltas = sources.comparison.deltas
    assert len(exported) == len(deltas)
    for row in deltas.itertuples():
        own = exported.loc[readable(str(row.name))]
        bounds = [float(own[f"95 % interval, {end}"]) for end in ("low", "high")]
        assert bounds == pytest.approx([row.ci_low, row.ci_high], nan_ok=True)
        if row.count_reference:
            assert float(own["Change"]) == pytest.approx(row.relative_change)
        else:
            assert str(own["Change"]) == ("inf" if row.count_treatment else "none in either")


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
