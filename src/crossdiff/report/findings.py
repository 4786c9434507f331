"""What a study found: its answer, the figures behind it, and the numbers that other programs read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from crossdiff.report.tables import Table

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Chart:
    """One figure with its caption and table twin; a chart without a figure is the table alone."""

    name: str
    title: str
    caption: str
    figure: go.Figure | None = None
    table: Table | None = None
    wide: bool = True


@dataclass(frozen=True)
class Findings:
    """A study's results page: one generated sentence first, then notes, tiles and charts."""

    answer: str
    notes: tuple[str, ...] = ()
    tiles: tuple[dict[str, str], ...] = ()
    charts: tuple[Chart, ...] = ()
    numbers: dict[str, Any] = field(default_factory=dict)

    def tables(self) -> Iterator[tuple[str, Table]]:
        """Every table with its file name."""
        for chart in self.charts:
            if chart.table is not None:
                yield chart.name, chart.table
