"""Diverging bars of the change of every class and category."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from crossdiff.report.figures import style
from crossdiff.report.words import change_text, readable

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

LIMIT = 4.0
"""Bars end at a factor of 2**4 either way; what lies further is drawn to the edge and named in the text."""


def log2_factor(change: float | None) -> float:
    """log2 of share_treatment / share_reference, from the relative change; clipped to +-LIMIT, NaN unknown."""
    if change is None or math.isnan(change):
        return math.nan
    if change <= -1:
        return -LIMIT
    return max(-LIMIT, min(LIMIT, math.log2(1 + change)))


def bar_value(row: Any) -> float:
    """Length of a delta row's bar: a new category goes to the right edge, none against none to NaN."""
    if row.count_reference == 0:
        return LIMIT if row.count_treatment > 0 else math.nan
    return log2_factor(row.relative_change)


def ordered(deltas: pd.DataFrame) -> pd.DataFrame:
    """Classes from largest to smallest change, each followed by its categories in the same order."""
    rows = deltas.assign(value=[bar_value(row) for row in deltas.itertuples(index=False)])
    classes = rows[rows["level"] == "class"].sort_values(
        ["value", "name"], ascending=False, na_position="last"
    )
    parts = []
    for name in classes["name"]:
        parts.append(classes[classes["name"] == name])
        inside = rows[(rows["level"] == "category") & (rows["parent"] == name)]
        parts.append(inside.sort_values(["value", "name"], ascending=False, na_position="last"))
    listed = set().union(*(part.index for part in parts)) if parts else set()
    parts.append(rows[~rows.index.isin(listed)])
    import pandas as pd

    return pd.concat(parts, ignore_index=True)


def holds_zero(row: Any) -> bool:
    """Whether the interval of the change holds 0 or is not known."""
    return not (row.ci_low > 0 or row.ci_high < 0)


def changes(
    deltas: pd.DataFrame, *, planted: dict[str, float] | None = None, level: str | None = None
) -> go.Figure:
    """Relative change of each class and category on a log2 axis, hollow when its interval holds 0.

    `planted` maps a category to its planted relative change (toy organism only), drawn as a diamond.
    """
    import plotly.graph_objects as go

    rows = ordered(deltas) if level is None else ordered(deltas[deltas["level"] == level])
    rows = rows[(rows["count_reference"] > 0) | (rows["count_treatment"] > 0)].reset_index(drop=True)
    figure = go.Figure()
    if rows.empty:
        return style.note(style.layout(figure, height=160), "No labelled exclusive latents to compare.")
    names = [_tick(row) for row in rows.itertuples(index=False)]
    _bars(figure, rows, names)
    if planted:
        _diamonds(figure, rows, names, planted)
    _axes(figure, rows, names)
    return figure


def _tick(row: Any) -> str:
    name = readable(row.name)
    return f"<b>{name}</b>" if row.level == "class" else name


def _bars(figure: go.Figure, rows: pd.DataFrame, names: list[str]) -> None:
    directions = (
        ("more in the treatment pair", style.MORE, rows["value"] > 0),
        ("less in the treatment pair", style.LESS, rows["value"] < 0),
        ("same share or not known", style.SAME, ~((rows["value"] > 0) | (rows["value"] < 0))),
    )
    for title, colour, mask in directions:
        part = rows[mask]
        if part.empty:
            continue
        each = list(part.itertuples(index=False))
        hollow = [holds_zero(row) for row in each]
        figure.add_bar(
            orientation="h",
            y=[names[index] for index in part.index],
            x=[0 if math.isnan(row.value) else row.value for row in each],
            name=title,
            marker={
                "color": [style.PAPER if empty else colour for empty in hollow],
                "line": {"color": colour, "width": 1.6},
            },
            error_x=_whiskers(each),
            customdata=[_hover(row) for row in each],
            hovertemplate="<b>%{y}</b><br>%{customdata}<extra></extra>",
        )


def _whiskers(rows: list[Any]) -> dict[str, Any]:
    high = [log2_factor(row.ci_high) - (0 if math.isnan(row.value) else row.value) for row in rows]
    low = [(0 if math.isnan(row.value) else row.value) - log2_factor(row.ci_low) for row in rows]
    return {
        "type": "data",
        "symmetric": False,
        "array": [0 if math.isnan(value) else max(value, 0) for value in high],
        "arrayminus": [0 if math.isnan(value) else max(value, 0) for value in low],
        "color": style.MUTED,
        "thickness": 1.2,
        "width": 3,
    }


def _hover(row: Any) -> str:
    counts = (
        f"{row.count_treatment}/{row.total_treatment} against {row.count_reference}/{row.total_reference}"
    )
    interval = (
        "no interval"
        if math.isnan(row.ci_low)
        else f"95 % interval {change_text(row.ci_low)} to {change_text(row.ci_high)}"
    )
    return f"{row_text(row)}<br>{counts}<br>{interval}"


def row_text(row: Any) -> str:
    """The change as people read it: a signed percentage, `new (3 vs 0)`, or `none in either`."""
    if row.count_reference == 0:
        return f"new ({row.count_treatment} vs 0)" if row.count_treatment else "none in either"
    return change_text(row.relative_change)


def _diamonds(figure: go.Figure, rows: pd.DataFrame, names: list[str], planted: dict[str, float]) -> None:
    found = [
        (names[index], planted[row.name])
        for index, row in enumerate(rows.itertuples(index=False))
        if row.level == "category" and planted.get(row.name) is not None
    ]
    figure.add_scatter(
        mode="markers",
        y=[name for name, _ in found],
        x=[log2_factor(change) for _, change in found],
        name="planted truth",
        marker={
            "symbol": "diamond",
            "size": 9,
            "color": style.PLANTED,
            "line": {"color": style.PAPER, "width": 1},
        },
        customdata=[change_text(change) for _, change in found],
        hovertemplate="<b>%{y}</b><br>planted %{customdata}<extra></extra>",
    )


def _axes(figure: go.Figure, rows: pd.DataFrame, names: list[str]) -> None:
    reach = min(LIMIT, max(1.0, math.ceil(max(rows["value"].abs().max(), 1.0))))
    ticks = list(range(-int(reach), int(reach) + 1))
    for index, row in enumerate(rows.itertuples(index=False)):
        figure.add_annotation(
            x=1,
            xref="paper",
            xanchor="left",
            xshift=8,
            y=names[index],
            showarrow=False,
            align="left",
            text=f"{row_text(row)}  <span style='color:{style.MUTED}'>"
            f"{row.count_treatment}:{row.count_reference}</span>",
            font={"size": 12},
        )
    style.layout(
        figure,
        height=90 + 24 * len(rows) + 40,
        barmode="overlay",
        bargap=0.35,
        margin={"l": 210, "r": 150, "t": 40, "b": 56},
        hovermode="closest",
    )
    figure.update_yaxes(
        autorange="reversed",
        categoryorder="array",
        categoryarray=names,
        showgrid=False,
        ticks="",
        showline=False,
    )
    figure.update_xaxes(
        range=[-reach - 0.15, reach + 0.15],
        tickvals=ticks,
        ticktext=[_factor(tick) for tick in ticks],
        title={"text": "share of exclusive latents, treatment against reference (log2)"},
        zeroline=True,
        zerolinewidth=1.5,
    )


def _factor(tick: int) -> str:
    if tick == 0:
        return "same"
    return f"×{2**tick}" if tick > 0 else f"÷{2**-tick}"
