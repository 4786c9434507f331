"""Curves of the training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from crossdiff.io.tables import values
from crossdiff.report import style

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

MAX_POINTS = 300
PANELS = {
    "loss": ("loss", "reconstruction", "auxiliary", "sparsity", "revival"),
    "FVE, training batches": ("fve_base", "fve_tuned"),
    "FVE, held out": ("val_fve_base", "val_fve_tuned"),
    "L0": ("l0", "val_l0", "k"),
    "dead share": ("dead_share", "val_never_fired"),
    "threshold": ("threshold",),
    "mean decoder norm": ("decoder_norm_base", "decoder_norm_tuned"),
    "share of latents": ("share_base_only", "share_tuned_only", "share_shared", "share_other"),
    "learning rate": ("learning_rate",),
    "gradient norm": ("gradient_norm",),
    "tokens per second": ("tokens_per_s",),
}
LINES = {
    "fve_base": "base", "fve_tuned": "tuned", "val_fve_base": "base", "val_fve_tuned": "tuned",
    "decoder_norm_base": "base", "decoder_norm_tuned": "tuned", "l0": "batches", "val_l0": "held out",
    "dead_share": "lately", "val_never_fired": "not on held-out tokens", "share_base_only": "base only",
    "share_tuned_only": "tuned only", "share_shared": "shared", "share_other": "other",
}  # fmt: skip
"""Names of lines in a panel's key; other columns keep theirs."""
NO_PANEL = frozenset(
    {"step", "tokens", "epoch", "seconds", "val_fve_batch_base", "val_fve_batch_tuned", "val_l0_batch"}
)


def training(metrics: pd.DataFrame | None, record: Mapping[str, Any] | None = None) -> go.Figure:
    """One small panel per logged quantity over the optimizer step; both models share a panel.

    `record` is training.json, without a number of steps for an imported crosscoder.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    drawn = {} if metrics is None else panels(metrics)
    if metrics is None or not drawn:
        why = "No training metrics were recorded."
        if record and record.get("n_steps") is None:
            why = "Imported: this crosscoder was read, not trained here."
        return style.note(style.layout(go.Figure(), height=160), why)
    n_columns = min(3, len(drawn))
    n_rows = -(-len(drawn) // n_columns)
    figure = make_subplots(
        rows=n_rows,
        cols=n_columns,
        subplot_titles=[panel_title(title, columns) for title, columns in drawn.items()],
        vertical_spacing=min(0.14, 0.34 / n_rows),
    )
    for number, columns in enumerate(drawn.values()):
        row, col = number // n_columns + 1, number % n_columns + 1
        for index, column in enumerate(columns):
            figure.add_trace(_line(metrics, column, style.SERIES[index]), row=row, col=col)
    style.layout(
        figure, height=70 + 190 * n_rows, margin={"l": 48, "r": 16, "t": 34, "b": 36}, showlegend=False
    )
    figure.update_annotations(font={"size": 12.5, "color": style.MUTED})
    figure.update_xaxes(nticks=5)
    figure.update_yaxes(nticks=5)
    return figure


def _line(metrics: pd.DataFrame, column: str, colour: str) -> go.Scatter:
    import plotly.graph_objects as go

    step = "step" if "step" in metrics else str(metrics.columns[0])
    known = metrics[[step, column]].dropna()
    known = known.iloc[:: max(1, -(-len(known) // MAX_POINTS))]
    return go.Scatter(
        mode="lines" if len(known) > 1 else "markers",
        x=known[step].tolist(),
        y=[float(f"{value:.5g}") for value in known[column]],
        name=column,
        line={"color": colour, "width": 1.8},
        hovertemplate=f"{column}<br>step %{{x:,}}<br>%{{y:.4g}}<extra></extra>",
    )


def panel_title(title: str, columns: Sequence[str]) -> str:
    """The title, with a key of the lines where there are several."""
    if len(columns) < 2:
        return title
    keys = [
        f"<span style='color:{colour}'>— {LINES.get(column, column.replace('_', ' '))}</span>"
        for column, colour in zip(columns, style.SERIES, strict=False)
    ]
    return f"{title}  {'  '.join(keys)}"


def panels(metrics: pd.DataFrame) -> dict[str, list[str]]:
    """Title -> recorded columns; a column outside `PANELS` has its own panel."""
    recorded = [
        str(column)
        for column in metrics.columns
        if column not in NO_PANEL and _is_numeric(metrics, str(column))
    ]
    drawn = {title: [name for name in names if name in recorded] for title, names in PANELS.items()}
    drawn["loss"] = [name for name in drawn["loss"] if np.nan_to_num(values(metrics, name)).any()]
    placed = {name for names in PANELS.values() for name in names}
    drawn |= {name: [name] for name in recorded if name not in placed}
    return {title: names for title, names in drawn.items() if names}


def _is_numeric(metrics: pd.DataFrame, column: str) -> bool:
    return np.asarray(metrics[column]).dtype.kind in "fiu" and bool(
        np.isfinite(values(metrics, column)).any()
    )
