"""Figures as PNG or SVG files and tables as CSV files, for papers and for other programs.

PNG and SVG are drawn by kaleido in a headless Chromium (`apt-get install chromium`); `CROSSDIFF_CHROMIUM`
names another executable.
"""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from crossdiff.report.comparison_section import comparison_section
from crossdiff.report.pair_section import pair_section
from crossdiff.report.sections import page_context
from crossdiff.report.sources import ComparisonSource, PairSource, Sources
from crossdiff.report.tables import Cell, Column, Table

if TYPE_CHECKING:
    import plotly.graph_objects as go


WIDE, COLUMN = 1000, 640
"""Width in pixels of delta chart, training panels and multiverse, and of other figures."""
PNG_SCALE = 3
"""PNG pixels per pixel of the figure: 640 become 1920, 300 dpi at 6.4 inches."""
TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "−": "$-$", "×": r"$\times$", "÷": r"$\div$", "–": "--", "…": r"\dots{}",
}  # fmt: skip
"""LaTeX for characters that it reads as commands or its text fonts lack."""
EXECUTABLES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


OF_COMPARISON = ("changes", "multiverse")
OF_PAIR = ("delta_norm", "nu", "stops", "density", "norms", "cosines", "training")


def figures_of(sources: Sources, folder: Path, *, image_format: Literal["png", "svg"]) -> list[Path]:
    """Write every figure of a report into `folder`; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    return write_figures(page_context(sources)["figures"], folder, image_format=image_format)


def tables_of(sources: Sources, folder: Path, *, table_format: Literal["csv", "tex"]) -> list[Path]:
    """Write every table of a report into `folder`; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    write = write_csv if table_format == "csv" else write_tex
    tables = named_tables(page_context(sources))
    return [write(table, folder / f"{name}.{table_format}") for name, table in tables]


def write_figures(figures: dict[str, Any], folder: Path, *, image_format: str) -> list[Path]:
    """One image file per figure, `<name>.<format>`, all drawn by one browser."""
    from plotly.io import write_images

    os.environ["BROWSER_PATH"] = browser()
    paths = [folder / f"{name}.{image_format}" for name in figures]
    if not paths:
        return paths
    wide = [name.startswith(("changes", "training", "multiverse")) for name in figures]
    write_images(
        fig=list(figures.values()),
        file=list[str | Path](paths),
        format=image_format,
        width=[WIDE if is_wide else COLUMN for is_wide in wide],
        scale=PNG_SCALE if image_format == "png" else 1,
    )
    return paths


def browser_path() -> str | None:
    """Path of a Chromium: `CROSSDIFF_CHROMIUM`, else the first of `EXECUTABLES`; None without one."""
    given = os.environ.get("CROSSDIFF_CHROMIUM")
    program = given or next((path for name in EXECUTABLES if (path := shutil.which(name))), None)
    return program if program is not None and Path(program).is_file() else None


def browser() -> str:
    """`browser_path`; ValueError where there is none."""
    program = browser_path()
    if program is None:
        sought = os.environ.get("CROSSDIFF_CHROMIUM") or f"none of {', '.join(EXECUTABLES)}"
        raise ValueError(
            f"figures are drawn by a Chromium, and {sought} was found; "
            "install one (apt-get install chromium), set CROSSDIFF_CHROMIUM=/path/to/it, "
            "or save images from the report's chart menus"
        )
    return program


def named_tables(context: dict[str, Any]) -> Iterator[tuple[str, Table]]:
    """(file name, table) of every table of the page."""
    comparison = context["comparison"]
    if comparison:
        yield "changes", comparison["table"]
        yield from _block_tables("comparison", comparison["blocks"])
    for pair in context["pairs"]:
        for chart in pair["charts"]:
            if chart["table"]:
                yield chart["name"], chart["table"]
        yield from _block_tables(pair["name"], pair["blocks"])
    for name in ("set_aside", "annotation", "steps"):
        if context[name]:
            yield name, context[name]


def _block_tables(prefix: str, blocks: list[dict[str, Any]]) -> Iterator[tuple[str, Table]]:
    for block in blocks:
        if block["table"]:
            slug = "-".join("".join(c if c.isalnum() else " " for c in block["title"].lower()).split())
            yield f"{prefix}-{slug}", block["table"]


def write_csv(table: Table, path: Path) -> Path:
    """Write titles and cells; numeric columns as numbers, intervals as two columns."""
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(title for column in table.columns for title in _titles(column))
        for row in table.rows:
            cells = zip(table.columns, row.cells, strict=True)
            writer.writerow(value for column, cell in cells for value in _values(column, cell))
    return path


def _titles(column: Column) -> list[str]:
    return [f"{column.title}, {end}" for end in ("low", "high")] if column.interval else [column.title]


def _values(column: Column, cell: Cell) -> list[Any]:
    """The cell's value, or the bounds of its interval; empty where unknown."""
    if isinstance(cell.value, tuple):
        return ["" if bound != bound else bound for bound in cell.value]
    number = cell.sort if cell.value is None else cell.value
    known = column.numeric and number is not None and number == number
    return [number if known else cell.text]


def write_tex(table: Table, path: Path) -> Path:
    """Write a `tabular` with booktabs rules, numbers to the right, classes in bold."""
    kinds = "".join("r" if column.numeric else "l" for column in table.columns)
    lines = [
        "% needs \\usepackage{booktabs}",
        f"\\begin{{tabular}}{{{kinds}}}",
        "\\toprule",
        _tex_row([column.title for column in table.columns]),
        "\\midrule",
    ]
    for row in table.rows:
        cells = [_tex(cell.text) for cell in row.cells]
        if row.kind == "class":
            cells[0] = f"\\textbf{{{cells[0]}}}"
        lines.append(" & ".join(cells) + " \\\\")
    path.write_text("\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""]), encoding="utf-8")
    return path


def _tex_row(texts: list[str]) -> str:
    return " & ".join(_tex(text) for text in texts) + " \\\\"


def _tex(text: str) -> str:
    return "".join(TEX.get(character, character) for character in text)


def known_name(name: str) -> str:
    """The name with `_`; ValueError for one that the report has not."""
    plain = name.replace("-", "_")
    if plain not in (*OF_COMPARISON, *OF_PAIR):
        raise ValueError(f"there is no figure {name!r}; there are {', '.join((*OF_COMPARISON, *OF_PAIR))}")
    return plain


def comparison_figure(name: str, comparison: ComparisonSource | None, *, whose: str) -> go.Figure:
    """A figure of two pairs against each other; ValueError where there is no comparison."""
    if comparison is None:
        raise ValueError(
            f"figure {name!r} shows a comparison, and {whose} has one pair; it has figures "
            f"{', '.join(OF_PAIR)}"
        )
    drawn: dict[str, Any] = {}
    comparison_section(comparison, drawn)
    return _drawn(drawn, name, f"the comparison of {whose}")


def pair_figure(name: str, pair: PairSource) -> go.Figure:
    """A figure of one pair; ValueError where there is nothing to draw."""
    drawn: dict[str, Any] = {}
    pair_section(pair, [], drawn)
    figures = {key.removesuffix(f"-{pair.name}").replace("-", "_"): made for key, made in drawn.items()}
    return _drawn(figures, name, pair.name)


def _drawn(figures: dict[str, Any], name: str, whose: str) -> go.Figure:
    if name not in figures:
        raise ValueError(f"{whose} has no figure {name!r} (nothing to draw); it has {', '.join(figures)}")
    return figures[name]
