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
from typing import Any, Literal

from crossdiff.report.sections import page_context
from crossdiff.report.sources import Sources
from crossdiff.report.tables import Table

WIDE, COLUMN = 1000, 640
"""Width in pixels of the delta chart and the training panels, and of all other figures."""
PNG_SCALE = 3
"""Pixels of a PNG per pixel of the figure: 640 become 1920, 300 dpi at 6.4 inches."""
EXECUTABLES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def export(
    sources: Sources, folder: Path, *, what: Literal["figures", "tables"], image_format: Literal["png", "svg"]
) -> list[Path]:
    """Write every figure (or every table) of a report into `folder`; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    context = page_context(sources)
    if what == "tables":
        return [write_csv(table, folder / f"{name}.csv") for name, table in named_tables(context)]
    return write_figures(context["figures"], folder, image_format=image_format)


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
        width=[WIDE if each else COLUMN for each in wide],
        scale=PNG_SCALE if image_format == "png" else 1,
    )
    return paths


def browser() -> str:
    """The Chromium that draws images; ValueError with the way out where there is none."""
    given = os.environ.get("CROSSDIFF_CHROMIUM")
    found = given or next((path for name in EXECUTABLES if (path := shutil.which(name))), None)
    if found is None or not Path(found).is_file():
        raise ValueError(
            f"figures are drawn by a Chromium, and {found or 'none of ' + ', '.join(EXECUTABLES)} was found; "
            "install one (apt-get install chromium), set CROSSDIFF_CHROMIUM=/path/to/it, "
            "or save images from the report's chart menus"
        )
    return found


def named_tables(context: dict[str, Any]) -> Iterator[tuple[str, Table]]:
    """Every table of the page with a file name."""
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
    """Titles and cells as they are read; numeric columns hold the number itself."""
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(column.title for column in table.columns)
        for row in table.rows:
            writer.writerow(
                cell.sort if column.numeric and cell.sort is not None else cell.text
                for column, cell in zip(table.columns, row.cells, strict=True)
            )
    return path
