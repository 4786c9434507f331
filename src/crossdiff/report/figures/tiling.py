"""Densities and heat maps as filled squares, one scatter trace per shade: the basic bundle draws them."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crossdiff.report import style

if TYPE_CHECKING:
    import plotly.graph_objects as go

N_BINS = 80
Range = tuple[float, float]
Column = NDArray[np.float64]


def crowd(figure: go.Figure, x: Column, y: Column, *, x_range: Range, y_range: Range) -> int:
    """Shade the bins of `N_BINS` x `N_BINS` by their count (log); returns how many points lie outside."""
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
    x_edges, y_edges = (np.round(each, 5) for each in edges)
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
