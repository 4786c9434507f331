"""Heat map of the changes under every analysis choice (multiverse)."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from crossdiff.report import style
from crossdiff.report.figures.rows import LIMIT, log2_factor
from crossdiff.report.figures.tiling import squares
from crossdiff.report.formatting import readable

if TYPE_CHECKING:
    import plotly.graph_objects as go

STEPS = (-1.5, -0.75, -0.2, 0.2, 0.75, 1.5)


def multiverse(
    names: Sequence[str], choices: Sequence[str], values: Sequence[Sequence[float | None]]
) -> go.Figure:
    """Relative change [category choice] as coloured squares on a log2 scale; unknown ones stay empty."""
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
