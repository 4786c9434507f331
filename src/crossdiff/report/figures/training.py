"""Curves of the training run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crossdiff.report.figures import style

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

MAX_POINTS = 400


def training(metrics: pd.DataFrame | None) -> go.Figure:
    """One small panel per logged quantity over the optimizer step; quantities of both models share a panel."""
    from plotly.subplots import make_subplots

    panels = {} if metrics is None else _panels(metrics)
    if metrics is None or not panels:
        import plotly.graph_objects as go

        return style.note(style.layout(go.Figure(), height=160), "No training metrics were recorded.")
    n_columns = min(3, len(panels))
    n_rows = -(-len(panels) // n_columns)
    figure = make_subplots(rows=n_rows, cols=n_columns, subplot_titles=list(panels), vertical_spacing=0.16)
    step = _step(metrics)
    for number, columns in enumerate(panels.values()):
        for index, column in enumerate(columns):
            known = metrics[[step, column]].dropna()
            known = known.iloc[:: max(1, len(known) // MAX_POINTS)]
            figure.add_scatter(
                row=number // n_columns + 1,
                col=number % n_columns + 1,
                mode="lines" if len(known) > 1 else "markers",
                x=known[step].tolist(),
                y=[float(f"{value:.5g}") for value in known[column]],
                name=column,
                showlegend=False,
                line={"color": style.SERIES[index % len(style.SERIES)], "width": 1.8},
                hovertemplate=f"{column}<br>step %{{x:,}}<br>%{{y:.4g}}<extra></extra>",
            )
    style.layout(
        figure, height=60 + 210 * n_rows, margin={"l": 50, "r": 16, "t": 36, "b": 40}, showlegend=False
    )
    figure.update_annotations(font={"size": 12, "color": style.MUTED})
    return figure


def _step(metrics: pd.DataFrame) -> str:
    for name in ("step", "n_tokens", "epoch"):
        if name in metrics:
            return name
    return str(metrics.columns[0])


def _panels(metrics: pd.DataFrame) -> dict[str, list[str]]:
    """Title -> columns: `train/fve_base` and `train/fve_tuned` share the panel `train/fve`."""
    panels: dict[str, list[str]] = {}
    for column in metrics.columns:
        if column in ("step", "epoch", "n_tokens", "seconds") or metrics[column].dropna().empty:
            continue
        if metrics[column].dtype.kind not in "fiu":
            continue
        title = column.removesuffix("_base").removesuffix("_tuned")
        panels.setdefault(title, []).append(column)
    return panels
