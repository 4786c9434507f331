"""The results page of a study: its question, the generated answer, figures with table twins, provenance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crossdiff.io.artifacts import read_manifest
from crossdiff.report import tables
from crossdiff.report.findings import Chart, Findings
from crossdiff.report.formatting import duration, visible
from crossdiff.report.page import fill
from crossdiff.report.style import height_of


def render(
    findings: Findings, *, title: str, question: str, artifacts: Sequence[tuple[str, Path]] = ()
) -> str:
    """The page as HTML text; `artifacts` are the finished steps it was made from."""
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
    """The parents of the study: which step, its key, how long it took, at which commit."""
    rows = []
    for name, folder in artifacts:
        entry = read_manifest(folder)
        seconds = tables.Cell(duration(entry.get("seconds")), sort=entry.get("seconds"))
        commit = (entry.get("commit") or "not in a checkout")[:12]
        rows.append((name, f"{entry['stage']} {entry['label']}", entry["key"], seconds, commit))
    return tables.plain(["Part", "Step", "Key", "Time", "Commit"], rows, numeric=[3])


def _chart(chart: Chart) -> dict[str, Any]:
    return {
        "name": chart.name,
        "title": chart.title,
        "caption": chart.caption,
        "height": height_of(chart.figure) if chart.figure is not None else 0,
        "table": chart.table,
        "wide": chart.wide,
    }
