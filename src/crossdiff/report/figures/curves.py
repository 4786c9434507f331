"""Values with intervals over a number (layer, dose, weight) or over named rows: the figures of studies."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crossdiff.report import style

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Point:
    """A value at `x` (a number, or the name of a row) with its interval; NaN bounds: no interval."""

    x: float | str
    value: float
    low: float = float("nan")
    high: float = float("nan")


def curves(
    series: Mapping[str, Sequence[Point]], *, x_title: str, y_title: str, height: int = 420
) -> go.Figure:
    """One line with error bars per series."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for number, (name, points) in enumerate(series.items()):
        colour = style.SERIES[number % len(style.SERIES)]
        figure.add_scatter(
            x=[point.x for point in points],
            y=[_number(point.value) for point in points],
            error_y=_bars(points, colour),
            mode="lines+markers",
            name=html.escape(name, quote=False),
            line={"color": colour, "width": 2, "dash": ("solid", "dash", "dot")[number // 6 % 3]},
            marker={"color": colour, "size": 8, "symbol": number},
            hovertemplate=f"{html.escape(name)}<br>%{{x}}: %{{y:.4g}}<extra></extra>",
        )
    style.layout(figure, height=height)
    figure.update_xaxes(title={"text": x_title})
    figure.update_yaxes(title={"text": y_title})
    return figure


def rows(series: Mapping[str, Sequence[Point]], *, x_title: str, zero: bool = True) -> go.Figure:
    """Named rows from top to bottom, one dot with a horizontal interval per series."""
    import plotly.graph_objects as go

    figure = go.Figure()
    names = list(dict.fromkeys(str(point.x) for points in series.values() for point in points))
    for number, (name, points) in enumerate(series.items()):
        colour = style.SERIES[number % len(style.SERIES)]
        shift = 0.5 * ((number + 1) / (len(series) + 1) - 0.5)
        figure.add_scatter(
            x=[_number(point.value) for point in points],
            y=[names.index(str(point.x)) + shift for point in points],
            error_x=_bars(points, colour),
            mode="markers",
            name=html.escape(name, quote=False),
            marker={"color": colour, "size": 9, "symbol": number},
            text=[html.escape(str(point.x)) for point in points],
            hovertemplate=f"{html.escape(name)}<br>%{{text}}: %{{x:.4g}}<extra></extra>",
        )
    left = min(330, 40 + 7 * max((len(name) for name in names), default=0))
    margin = {"l": left, "r": 24, "t": 40, "b": 52}
    style.layout(figure, height=130 + 30 * max(1, len(names)), margin=margin)
    figure.update_xaxes(title={"text": x_title}, zeroline=zero)
    figure.update_yaxes(
        tickvals=list(range(len(names))),
        ticktext=[html.escape(name, quote=False) for name in names],
        range=[len(names) - 0.4, -0.6],
        showgrid=False,
    )
    return figure


def _bars(points: Sequence[Point], colour: str) -> dict:
    """Lengths of the error bars to both sides; unknown bounds draw none."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [_number(point.high - point.value) or 0 for point in points],
        "arrayminus": [_number(point.value - point.low) or 0 for point in points],
        "color": colour,
        "thickness": 1.4,
        "width": 4,
    }


def _number(value: float) -> float | None:
    return float(f"{value:.6g}") if value == value and abs(value) != float("inf") else None
