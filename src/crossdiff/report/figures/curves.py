"""Values with intervals over a setting (layer, dose, weight), over named rows or over runs."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crossdiff.report import style
from crossdiff.report.delta_rows import SignStability
from crossdiff.report.formatting import readable, visible

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Point:
    """A value at `x` (a number, or the name of a row) with its interval; NaN bounds draw none."""

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


Series = Mapping[str, Sequence[float | None]]


def over_setting(values: Sequence[str], *, names: Sequence[str], panels: Mapping[str, Series]) -> go.Figure:
    """One panel per figure of merit: a point per run and pair over `values`, the setting of each run.

    Lines join the means of the runs with the same setting. `panels` maps a title to pair -> value per run;
    missing values are left out.
    """
    from plotly.subplots import make_subplots

    n_columns, order = min(3, len(panels)), list(dict.fromkeys(values))
    n_rows = -(-len(panels) // n_columns)
    figure = make_subplots(
        rows=n_rows, cols=n_columns, subplot_titles=list(panels), vertical_spacing=0.3 / n_rows
    )
    for number, series in enumerate(panels.values()):
        row, col = number // n_columns + 1, number % n_columns + 1
        for index, (pair, figures) in enumerate(series.items()):
            colour = style.SERIES[index % len(style.SERIES)]
            points = _points(values, names=names, figures=figures, pair=pair, colour=colour)
            points.showlegend = number == 0
            figure.add_trace(points, row=row, col=col)
            figure.add_trace(_means(values, figures=figures, pair=pair, colour=colour), row=row, col=col)
    style.layout(figure, height=110 + 210 * n_rows, margin={"l": 56, "r": 16, "t": 64, "b": 44})
    figure.update_annotations(font={"size": 12.5, "color": style.MUTED})
    figure.update_xaxes(type="category", categoryorder="array", categoryarray=[_safe(v) for v in order])
    figure.update_yaxes(nticks=5)
    figure.update_layout(legend={"y": 1 + 34 / (110 + 210 * n_rows)})
    return figure


def _points(
    values: Sequence[str], *, names: Sequence[str], figures: Sequence[float | None], pair: str, colour: str
) -> go.Scatter:
    import plotly.graph_objects as go

    known = [index for index, figure in enumerate(figures) if figure is not None]
    return go.Scatter(
        mode="markers",
        x=[_safe(values[index]) for index in known],
        y=[figures[index] for index in known],
        text=[_safe(names[index]) for index in known],
        name=_safe(pair),
        legendgroup=pair,
        marker={"color": colour, "size": 8, "opacity": 0.75},
        hovertemplate=f"{_safe(pair)}<br>%{{text}}<br>%{{y:.4g}}<extra></extra>",
    )


def _means(values: Sequence[str], *, figures: Sequence[float | None], pair: str, colour: str) -> go.Scatter:
    import plotly.graph_objects as go

    groups: dict[str, list[float]] = {}
    for value, figure in zip(values, figures, strict=True):
        if figure is not None:
            groups.setdefault(value, []).append(figure)
    return go.Scatter(
        mode="lines",
        x=[_safe(value) for value in groups],
        y=[float(f"{math.fsum(group) / len(group):.6g}") for group in groups.values()],
        legendgroup=pair,
        showlegend=False,
        line={"color": colour, "width": 1.6},
        hoverinfo="skip",
    )


def signs(categories: Mapping[str, SignStability]) -> go.Figure:
    """Runs with more to the right, with less to the left; pale where the interval contains no change."""
    import plotly.graph_objects as go

    figure = go.Figure()
    names = [_safe(readable(name)) for name in categories]
    rows = list(categories.values())
    parts = (
        ("less, interval clear of 0", style.LESS, [-one.clear_less for one in rows]),
        ("less, interval holds 0", style.DIVERGING[2], [one.clear_less - one.less for one in rows]),
        ("more, interval clear of 0", style.MORE, [one.clear_more for one in rows]),
        ("more, interval holds 0", style.DIVERGING[4], [one.more - one.clear_more for one in rows]),
    )
    for title, colour, lengths in parts:
        figure.add_trace(
            go.Bar(
                orientation="h",
                x=lengths,
                y=names,
                name=title,
                customdata=[abs(length) for length in lengths],
                marker={"color": colour},
                hovertemplate=f"%{{y}}<br>{title}: %{{customdata}} runs<extra></extra>",
            )
        )
    most = max((one.n_signed for one in rows), default=1) or 1
    style.layout(
        figure, height=110 + 22 * len(names), barmode="relative", bargap=0.25,
        margin={"l": 210, "r": 20, "t": 34, "b": 48},
    )  # fmt: skip
    ticks = sorted({-most, -(most // 2), 0, most // 2, most})
    figure.update_xaxes(
        range=[-most - 0.2, most + 0.2], tickvals=ticks, ticktext=[str(abs(tick)) for tick in ticks],
        title={"text": "runs with less — runs with more"},
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure


def _safe(text: str) -> str:
    """The name of a run or pair, escaped."""
    return html.escape(visible(text), quote=False)
