"""The look of all figures: colours for colour-blind readers too, fonts, margins.

The page maps the light colours to `DARK` in a dark theme, so one figure object serves page, W&B and the
PNG/SVG export.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import plotly.graph_objects as go

PAPER, INK, MUTED, GRID, LINE = "#ffffff", "#1c2733", "#566370", "#e6eaee", "#9aa6b2"
MORE, LESS, SAME = "#0a6eb4", "#c1500a", "#6b7682"
PLANTED, POINT, BASE_POINT, BAR, BAND = "#8a2f86", "#b3004b", "#00755e", "#7d93a8", "#f3efe6"
FIFTH = "#7a5c00"
SERIES = (MORE, LESS, BASE_POINT, PLANTED, FIFTH, SAME)
CROWD = ("#dde6ee", "#b9cadb", "#93acc4", "#6a8bac", "#426c95", "#1f4c77")
DIVERGING = ("#a8430a", "#d97f47", "#f0c4a5", "#eceff2", "#b3d2ea", "#5c9fd1", "#0a5d9c")

DARK = {
    PAPER: "#151b22",
    INK: "#e8edf2",
    MUTED: "#a3b0bd",
    GRID: "#262f38",
    LINE: "#6b7886",
    MORE: "#5ab4f0",
    LESS: "#f5935a",
    SAME: "#9ba7b4",
    PLANTED: "#dd8fd9",
    POINT: "#ff7aa8",
    BASE_POINT: "#3fc7a6",
    BAR: "#7f97ae",
    BAND: "#211f1a",
    FIFTH: "#d9b44a",
    "#dde6ee": "#1f2a35",
    "#b9cadb": "#2a3c4d",
    "#93acc4": "#3a546c",
    "#6a8bac": "#52769a",
    "#426c95": "#7aa3cc",
    "#1f4c77": "#b5d7f5",
    "#a8430a": "#ff9a5c",
    "#d97f47": "#b9652f",
    "#f0c4a5": "#5e3b24",
    "#eceff2": "#262f38",
    "#b3d2ea": "#23445e",
    "#5c9fd1": "#3a7fb5",
    "#0a5d9c": "#74c3fa",
}

FONT = "Inter, 'Segoe UI', 'Helvetica Neue', Arial, 'Noto Sans', sans-serif"


def layout(figure: go.Figure, *, height: int, **changes: Any) -> go.Figure:
    """Give `figure` the common look; `changes` go to `update_layout`."""
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
        margin={"l": 64, "r": 20, "t": 34, "b": 52},
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
    """Write `text` into the middle of an empty, low figure."""
    figure.add_annotation(
        text=text,
        x=0.5,
        y=0.5,
        xref="paper",
        yref="paper",
        showarrow=False,
        font={"size": 14, "color": MUTED},
    )
    figure.update_layout(height=120)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return figure


def height_of(figure: go.Figure) -> int:
    """The figure's height in pixels."""
    return int(figure.to_dict()["layout"]["height"])
