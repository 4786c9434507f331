"""The findings of a study (answer, figures with table twins, numbers), and their page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossdiff.io.artifacts import read_manifest
from crossdiff.report import tables
from crossdiff.report.formatting import duration, visible
from crossdiff.report.tables import Table

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Chart:
    """One figure with caption and table twin; without a figure, the table alone."""

    name: str
    title: str
    caption: str
    figure: go.Figure | None = None
    table: Table | None = None
    wide: bool = True


@dataclass(frozen=True)
class Findings:
    """The content of a study's page: the answer, then notes, tiles and charts."""

    answer: str
    notes: tuple[str, ...] = ()
    tiles: tuple[dict[str, str], ...] = ()
    charts: tuple[Chart, ...] = ()
    numbers: dict[str, Any] = field(default_factory=dict)

    def tables(self) -> Iterator[tuple[str, Table]]:
        """(file name, table) of every table."""
        for chart in self.charts:
            if chart.table is not None:
                yield chart.name, chart.table


def render(
    findings: Findings, *, title: str, question: str, artifacts: Sequence[tuple[str, Path]] = ()
) -> str:
    """The page as HTML text; `artifacts` are the study's finished steps."""
    from crossdiff.report.page import fill

    drawn = {chart.name: chart.figure for chart in findings.charts if chart.figure is not None}
    return fill(
        "study.html.j2",
        drawn,
        title=visible(title),
        question=question,
        answer=visible(findings.answer),
        notes=[visible(note) for note in findings.notes],
        tiles=findings.tiles,
        charts=[_chart(chart) for chart in findings.charts],
        steps=steps_table(artifacts),
    )


def steps_table(artifacts: Sequence[tuple[str, Path]]) -> tables.Table:
    """The parents of the study with key, time and commit."""
    rows = []
    for name, folder in artifacts:
        entry = read_manifest(folder)
        seconds = tables.Cell(duration(entry.get("seconds")), sort=entry.get("seconds"))
        commit = (entry.get("commit") or "not in a checkout")[:12]
        rows.append((name, f"{entry['stage']} {entry['label']}", entry["key"], seconds, commit))
    return tables.plain(["Part", "Step", "Key", "Time", "Commit"], rows, numeric=[3])


def _chart(chart: Chart) -> dict[str, Any]:
    from crossdiff.report.style import height_of

    return {
        "name": chart.name,
        "title": chart.title,
        "caption": chart.caption,
        "height": height_of(chart.figure) if chart.figure is not None else 0,
        "table": chart.table,
        "wide": chart.wide,
    }
