"""Diverging bars of the change of every class and category."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from crossdiff.report import style
from crossdiff.report.delta_rows import LIMIT, DeltaRow, delta_rows, log2_factor, ordered
from crossdiff.report.formatting import change_text

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

Truth = dict[str, float]
Placed = list[tuple[int, DeltaRow]]
"""(place on the axis from the top, row)."""


def changes(
    deltas: pd.DataFrame, *, planted: Truth | None = None, represented: Truth | None = None
) -> go.Figure:
    """Relative change of each class and category on a log2 axis; hollow unless interval and test exclude 0.

    `planted` and `represented` (toy organism only) map a category to its planted relative change, a diamond,
    and to its represented change, a hollow diamond. Rows that neither pair has are only in the table.
    """
    import plotly.graph_objects as go

    placed = list(enumerate(row for row in ordered(delta_rows(deltas)) if any(row.counts)))
    figure = go.Figure()
    if not placed:
        return style.note(style.layout(figure, height=160), "No labelled exclusive latents to compare.")
    for index, row in placed:
        if row.is_class:
            figure.add_hrect(
                y0=index - 0.5,
                y1=index + 0.5,
                fillcolor=style.GRID,
                opacity=0.55,
                layer="below",
                line_width=0,
            )
    _bars(figure, placed)
    for truth, name in ((planted, "planted truth"), (represented, "represented in the activations")):
        if truth:
            _diamonds(figure, placed, truth, name)
    reach = _reach(placed, [planted or {}, represented or {}])
    _axes(figure, [row for _, row in placed], reach=reach)
    _counts(figure, placed, reach=reach)
    return figure


def _bars(figure: go.Figure, placed: Placed) -> None:
    for title, colour, sign in (("more", style.MORE, 1), ("less", style.LESS, -1)):
        part = [(index, row) for index, row in placed if row.value * sign > 0]
        clear = [(index, row) for index, row in part if row.clear]
        hollow = [(index, row) for index, row in part if not row.clear]
        _bar(figure, clear, f"{title}, clear of 0", fill=colour, line=colour)
        _bar(figure, hollow, f"{title}, may be 0", fill=style.PAPER, line=colour)
    rest = [(index, row) for index, row in placed if row.value == 0 or math.isnan(row.value)]
    _bar(figure, rest, "same share", fill=style.PAPER, line=style.SAME)


def _bar(figure: go.Figure, placed: Placed, title: str, *, fill: str, line: str) -> None:
    if not placed:
        return
    rows = [row for _, row in placed]
    figure.add_bar(
        orientation="h",
        y=[index for index, _ in placed],
        x=[_length(row) for row in rows],
        width=0.62,
        name=title,
        marker={"color": fill, "line": {"color": line, "width": 1.6}},
        error_x=_whiskers(rows),
        customdata=[_hover(row) for row in rows],
        hovertemplate="%{customdata}<extra></extra>",
    )


def _length(row: DeltaRow) -> float:
    return 0.0 if math.isnan(row.value) else row.value


def _whiskers(rows: list[DeltaRow]) -> dict[str, Any]:
    high = [log2_factor(row.interval[1]) - _length(row) for row in rows]
    low = [_length(row) - log2_factor(row.interval[0]) for row in rows]
    return {
        "type": "data",
        "symmetric": False,
        "array": [0 if math.isnan(value) else max(value, 0) for value in high],
        "arrayminus": [0 if math.isnan(value) else max(value, 0) for value in low],
        "color": style.INK,
        "thickness": 1.1,
        "width": 3,
    }


def _hover(row: DeltaRow) -> str:
    (reference, treatment), (n_reference, n_treatment) = row.counts, row.totals
    counts = f"{treatment} of {n_treatment} against {reference} of {n_reference}"
    return f"<b>{row.tick}</b><br>{row.text}<br>{counts}<br>95 % interval: {row.interval_text()}"


def _diamonds(figure: go.Figure, placed: Placed, truth: Truth, name: str) -> None:
    diamonds = [
        (index, truth[row.name])
        for index, row in placed
        if not row.is_class and truth.get(row.name) is not None
    ]
    first = name.split(maxsplit=1)[0]
    figure.add_scatter(
        mode="markers",
        y=[index for index, _ in diamonds],
        x=[log2_factor(change) for _, change in diamonds],
        name=name,
        marker={
            "symbol": "diamond" if first == "planted" else "diamond-open",
            "size": 10,
            "color": style.PLANTED,
            "line": {"color": style.PAPER if first == "planted" else style.PLANTED, "width": 1},
        },
        customdata=[change_text(change) for _, change in diamonds],
        hovertemplate=f"{first} %{{customdata}}<extra></extra>",
    )


def _counts(figure: go.Figure, placed: Placed, *, reach: float) -> None:
    """Change and counts right of the bars, as one trace, which draws faster than annotations."""
    figure.add_scatter(
        mode="text",
        x=[reach + 0.1] * len(placed),
        y=[index for index, _ in placed],
        text=[_count_text(row) for _, row in placed],
        textposition="middle right",
        textfont={"size": 12, "color": style.INK},
        cliponaxis=False,
        hoverinfo="skip",
        showlegend=False,
        name="counts",
        xaxis="x2",  # shows the axis above the bars too
    )


def _count_text(row: DeltaRow) -> str:
    reference, treatment = row.counts
    counts = f"<span style='color:{style.MUTED}'>{treatment} : {reference}</span>"
    return f"\u00a0\u00a0{row.text if reference else 'new'}  {counts}"


def _reach(placed: Placed, truths: list[Truth]) -> float:
    """End of the axis, beyond all bars but those of new and vanished categories."""
    known = [abs(row.value) for _, row in placed if all(row.counts)]
    known += [abs(log2_factor(truth[row.name])) for truth in truths for _, row in placed if row.name in truth]
    return min(LIMIT, max(2.0, math.ceil(max(known, default=0.0) + 0.25)))


def _axes(figure: go.Figure, rows: list[DeltaRow], *, reach: float) -> None:
    powers = list(range(-int(reach), int(reach) + 1))
    style.layout(
        figure,
        height=130 + 25 * len(rows),
        barmode="overlay",
        margin={"l": 220, "r": 150, "t": 70, "b": 60},
        legend={"y": 1 + 26 / (25 * len(rows))},
        hovermode="closest",
    )
    figure.update_yaxes(
        range=[len(rows) - 0.5, -0.5],
        tickvals=list(range(len(rows))),
        ticktext=[row.tick for row in rows],
        showgrid=False,
        ticks="",
        showline=False,
        zeroline=False,
    )
    scale = {
        "range": [-reach - 0.1, reach + 0.1],
        "tickvals": powers,
        "ticktext": [_factor(power) for power in powers],
    }
    figure.update_xaxes(
        **scale,
        title={"text": "share in the treatment pair ÷ share in the reference pair (log2)"},
        zeroline=True,
        zerolinewidth=1.5,
    )
    figure.update_layout(
        xaxis2={**scale, "overlaying": "x", "side": "top", "matches": "x", "showgrid": False}
    )


def _factor(power: int) -> str:
    if power == 0:
        return "same"
    return f"×{2**power}" if power > 0 else f"÷{2**-power}"
