"""One look for every figure: colours that colour-blind readers can tell apart, fonts, margins.

The page maps the light colours to `DARK` when it shows a dark theme, so a figure object is made once
and serves the page, W&B and the PNG/SVG export.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import plotly.graph_objects as go

PAPER, INK, MUTED, GRID, LINE = "#ffffff", "#1c2733", "#5b6875", "#e6eaee", "#9aa6b2"
MORE, LESS, SAME = "#0a6eb4", "#c1500a", "#6b7682"
PLANTED, POINT, BASE_POINT, BAR, BAND = "#8a2f86", "#b3004b", "#00755e", "#7d93a8", "#f1e9dd"
SERIES = (MORE, LESS, "#00755e", PLANTED, "#7a5c00", SAME)
CROWD = ((0.0, "#eef2f6"), (0.35, "#b9cadb"), (0.7, "#7795b4"), (1.0, "#2f5680"))

DARK = {
    PAPER: "#151b22",
    INK: "#e8edf2",
    MUTED: "#a3b0bd",
    GRID: "#2a333d",
    LINE: "#6b7886",
    MORE: "#5ab4f0",
    LESS: "#f5935a",
    SAME: "#9ba7b4",
    PLANTED: "#dd8fd9",
    POINT: "#ff7aa8",
    BASE_POINT: "#3fc7a6",
    BAR: "#7f97ae",
    BAND: "#2b261d",
    "#7a5c00": "#d9b44a",
    "#eef2f6": "#1d2630",
    "#b9cadb": "#2f4459",
    "#7795b4": "#557a9f",
    "#2f5680": "#a8cdf0",
}

FONT = "Inter, 'Segoe UI', 'Helvetica Neue', Arial, 'Noto Sans', sans-serif"


def layout(figure: go.Figure, *, height: int, **changes: Any) -> go.Figure:
    """Give `figure` the house look; `changes` are passed on to `update_layout`."""
    axis = {
        "gridcolor": GRID,
        "zerolinecolor": LINE,
        "linecolor": LINE,
        "tickcolor": LINE,
        "ticks": "outside",
        "ticklen": 4,
        "showline": True,
        "title": {"font": {"size": 13, "color": MUTED}},
    }
    figure.update_layout(
        template="none",
        height=height,
        paper_bgcolor=PAPER,
        plot_bgcolor=PAPER,
        font={"family": FONT, "size": 13, "color": INK},
        margin={"l": 64, "r": 20, "t": 28, "b": 52},
        hoverlabel={
            "font": {"family": FONT, "size": 13, "color": INK},
            "bgcolor": PAPER,
            "bordercolor": LINE,
        },
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 12}},
        showlegend=True,
    )
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    figure.update_layout(**changes)
    return figure


def note(figure: go.Figure, text: str) -> go.Figure:
    """Write `text` into the middle of an otherwise empty figure."""
    figure.add_annotation(
        text=text,
        x=0.5,
        y=0.5,
        xref="paper",
        yref="paper",
        showarrow=False,
        font={"size": 15, "color": MUTED},
    )
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return figure
