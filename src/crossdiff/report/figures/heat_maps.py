"""Heat maps as filled squares: crowds of points, and the changes under every analysis choice (multiverse).

One scatter trace per shade, because plotly's basic bundle has no heat maps.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crossdiff.report import style
from crossdiff.report.delta_rows import LIMIT, log2_factor
from crossdiff.report.formatting import readable

if TYPE_CHECKING:
    import plotly.graph_objects as go


STEPS = (-1.5, -0.75, -0.2, 0.2, 0.75, 1.5)


def multiverse(
    names: Sequence[str], choices: Sequence[str], values: Sequence[Sequence[float | None]]
) -> go.Figure:
    """Relative change [category choice] as coloured squares on a log2 scale; empty where unknown."""
    import plotly.graph_objects as go

    figure = go.Figure()
    factors = np.array([[log2_factor(value) for value in line] for line in values], dtype=float)
    factors = factors.reshape(len(names), len(choices))
    edges = np.arange(len(choices) + 1.0), np.arange(len(names) + 1.0)
    bounds = (-math.inf, *STEPS, math.inf)
    for colour, low, high in zip(style.DIVERGING, bounds[:-1], bounds[1:], strict=True):
        cells = np.argwhere((factors > low) & (factors <= high))[:, ::-1]
        if len(cells):
            squares(figure, cells, edges, colour=colour, name=_range_text(low, high))
    style.layout(figure, height=120 + 22 * len(names), margin={"l": 210, "r": 20, "t": 20, "b": 90})
    figure.update_traces(showlegend=True, line={"width": 1.5, "color": style.PAPER})
    figure.update_xaxes(
        tickvals=[index + 0.5 for index in range(len(choices))],
        ticktext=[html.escape(choice, quote=False) for choice in choices],
        range=[0, len(choices)],
        showgrid=False,
    )
    figure.update_yaxes(
        tickvals=[index + 0.5 for index in range(len(names))],
        ticktext=[html.escape(readable(name), quote=False) for name in names],
        range=[len(names), 0],
        showgrid=False,
    )
    return figure


def _range_text(low: float, high: float) -> str:
    def text(value: float) -> str:
        return f"{2 ** max(-LIMIT, min(LIMIT, value)) - 1:+.0%}".replace("-", "−")

    if math.isinf(low):
        return f"below {text(high)}"
    return f"above {text(low)}" if math.isinf(high) else f"{text(low)} to {text(high)}"


N_BINS = 80
Range = tuple[float, float]
Column = NDArray[np.float64]


def crowd(figure: go.Figure, x: Column, y: Column, *, x_range: Range, y_range: Range) -> int:
    """Shade `N_BINS` x `N_BINS` bins by their count (log); returns the number of points outside."""
    counts, x_edges, y_edges = np.histogram2d(x, y, bins=N_BINS, range=[list(x_range), list(y_range)])
    limits = np.unique(np.round(np.geomspace(1, max(counts.max(), 1) + 1, len(style.CROWD) + 1)).astype(int))
    for number, (low, high) in enumerate(pairwise(limits)):
        cells = np.argwhere((counts >= low) & (counts < high))
        if not len(cells):
            continue
        shade = style.CROWD[number * len(style.CROWD) // (len(limits) - 1)]
        name = f"{low:,} latents" if high == low + 1 else f"{low:,} to {high - 1:,} latents"
        squares(figure, cells, (x_edges, y_edges), colour=shade, name=f"{name} per square")
    return int(len(x) - counts.sum())


def squares(
    figure: go.Figure,
    cells: NDArray[np.int64],
    edges: tuple[NDArray[np.float64], NDArray[np.float64]],
    *,
    colour: str,
    name: str,
) -> None:
    """One trace of filled squares; `cells` [cell, 2] are bin numbers along x and y."""
    x_edges, y_edges = (np.round(edge, 5) for edge in edges)
    xs: list[float | None] = []
    ys: list[float | None] = []
    for column, row in cells:
        left, right, low, high = x_edges[column], x_edges[column + 1], y_edges[row], y_edges[row + 1]
        xs += [float(left), float(right), float(right), float(left), float(left), None]
        ys += [float(low), float(low), float(high), float(high), float(low), None]
    figure.add_scatter(
        x=xs[:-1],
        y=ys[:-1],
        mode="lines",
        fill="toself",
        fillcolor=colour,
        line={"color": colour, "width": 0.4},
        name=name,
        hoveron="fills",
        hoverinfo="text",
        text=name,
        showlegend=False,
    )
