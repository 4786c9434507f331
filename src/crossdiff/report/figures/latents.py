"""Figures over all latents of a pair, binned, so that 114,688 latents draw like 200."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from crossdiff.core.exclusive_call import NORM_BINS, NORM_EDGES
from crossdiff.io.tables import alive, known, values, where
from crossdiff.report import style
from crossdiff.report.figures.heat_maps import Range, crowd

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

NU_RANGE = (-0.5, 1.5)
HEIGHT = 400
MODELS = (("tuned", style.POINT, "circle"), ("base", style.BASE_POINT, "square"))


def delta_norm(latents: pd.DataFrame) -> go.Figure:
    """Histogram of delta_norm of all alive latents, log counts and the bounds of the kinds."""
    import plotly.graph_objects as go

    norms = values(known(alive(latents), "delta_norm"), "delta_norm")
    figure = style.layout(go.Figure(), height=HEIGHT, showlegend=False, bargap=0)
    if not len(norms):
        return style.note(figure, "No latent of this pair is alive.")
    counts, edges = np.histogram(norms, bins=100, range=(0.0, 1.0))
    _histogram(figure, counts, edges, name="alive", colour=style.BAR, hover="delta_norm %{x:.3f}")
    for kind, (low, high) in NORM_BINS.items():
        figure.add_vrect(x0=low, x1=high, fillcolor=style.BAND, layer="below", line_width=0)
        figure.add_annotation(
            x=(low + high) / 2, y=1, yref="paper", yanchor="bottom", showarrow=False,
            text=kind.replace("_", " "), font={"size": 11, "color": style.MUTED},
        )  # fmt: skip
    for line in NORM_EDGES:
        figure.add_vline(x=line, line={"color": style.LINE, "width": 1, "dash": "dot"})
    figure.update_xaxes(range=[0, 1], title={"text": "delta_norm (0 base only, ½ shared, 1 tuned only)"})
    figure.update_yaxes(type="log", dtick=1, title={"text": "latents (log)"})
    return figure


def _histogram(
    figure: go.Figure, counts: np.ndarray, edges: np.ndarray, *, name: str, colour: str, hover: str
) -> None:
    figure.add_bar(
        x=((edges[:-1] + edges[1:]) / 2).round(4).tolist(),
        y=[int(count) if count else None for count in counts],
        width=float(edges[1] - edges[0]),
        name=f"{name} ({int(counts.sum()):,})",
        marker={"color": colour, "line": {"width": 0}},
        hovertemplate=f"{hover}<br>{name}: %{{y:,}} latents<extra></extra>",
    )


def nu_scatter(latents: pd.DataFrame, *, nu_error: float, nu_reconstruction: float) -> go.Figure:
    """nu_reconstruction against nu_error: latents as a density, exclusive ones as points, a box of limits.

    The points' customdata are the latents' numbers, so that a click can open one.
    """
    figure = _points(
        latents,
        x="nu_reconstruction",
        y="nu_error",
        x_range=NU_RANGE,
        y_range=NU_RANGE,
        empty="No latent has both ratios.",
    )
    figure.add_shape(
        type="rect",
        x0=max(-nu_reconstruction, NU_RANGE[0]),
        x1=min(nu_reconstruction, NU_RANGE[1]),
        y0=max(-nu_error, NU_RANGE[0]),
        y1=min(nu_error, NU_RANGE[1]),
        line={"color": style.POINT, "width": 1.2, "dash": "dash"},
    )
    figure.update_xaxes(title={"text": "nu_reconstruction (high: decoupled)"}, zeroline=False)
    figure.update_yaxes(title={"text": "nu_error (high: complete shrinkage)"}, zeroline=False)
    return figure


def _points(
    latents: pd.DataFrame, *, x: str, y: str, x_range: Range, y_range: Range, empty: str
) -> go.Figure:
    import plotly.graph_objects as go

    figure = style.layout(go.Figure(), height=HEIGHT)
    both = known(alive(latents), x, y)
    if both.empty:
        return style.note(figure, empty)
    outside = crowd(figure, values(both, x), values(both, y), x_range=x_range, y_range=y_range)
    if outside:
        figure.add_annotation(
            text=f"{outside:,} of {len(both):,} latents lie outside this window",
            x=1, y=1, xref="paper", yref="paper", xanchor="right", yanchor="top", showarrow=False,
            font={"size": 11, "color": style.MUTED},
        )  # fmt: skip
    for model, colour, symbol in MODELS:
        _exclusive_points(figure, latents, x, y, model=model, marker={"color": colour, "symbol": symbol})
    figure.update_xaxes(range=x_range)
    figure.update_yaxes(range=y_range)
    return figure


def _exclusive_points(
    figure: go.Figure, latents: pd.DataFrame, x: str, y: str, *, model: str, marker: dict[str, str]
) -> None:
    part = where(latents, call="exclusive", exclusive_to=model)
    if part.empty:
        return
    probed = model == "base" and x.startswith("nu_")
    columns = [f"{name}_baseprobe" if probed and f"{name}_baseprobe" in part else name for name in (x, y)]
    figure.add_scatter(
        mode="markers",
        x=np.round(values(part, columns[0]), 4).tolist(),
        y=np.round(values(part, columns[1]), 4).tolist(),
        customdata=[int(latent) for latent in part["latent"]],
        name=f"{model}-exclusive ({len(part):,})",
        marker={**marker, "size": 8, "line": {"color": style.PAPER, "width": 1}},
        hovertemplate=f"latent %{{customdata}}<br>{x} %{{x:.3f}}<br>{y} %{{y:.3f}}"
        "<br>click to read it<extra></extra>",
    )


def density(latents: pd.DataFrame) -> go.Figure:
    """Histogram of log10 density (share of tokens that fire a latent): alive latents, and exclusive ones."""
    import plotly.graph_objects as go

    figure = style.layout(go.Figure(), height=HEIGHT, barmode="overlay", bargap=0)
    living = alive(latents)
    logs = np.log10(np.maximum(values(living, "density"), 1e-300))
    exclusive = np.log10(np.maximum(values(where(living, call="exclusive"), "density"), 1e-300))
    logs, exclusive = logs[logs > -300], exclusive[exclusive > -300]
    if not len(logs):
        return style.note(figure, "No latent of this pair is alive.")
    edges = np.linspace(np.floor(logs.min() * 2) / 2 - 0.001, 0.0, 61)
    for name, shown, colour in (("alive", logs, style.BAR), ("exclusive", exclusive, style.POINT)):
        counts, _ = np.histogram(shown, bins=edges)
        _histogram(figure, counts, edges, name=name, colour=colour, hover="density 10^%{x:.2f}")
    ticks = list(range(int(np.floor(edges[0])), 1))
    figure.update_xaxes(
        tickvals=ticks,
        ticktext=["1" if tick == 0 else f"10<sup>{tick}</sup>" for tick in ticks],
        title={"text": "density (share of tokens that fire the latent)"},
    )
    figure.update_yaxes(type="log", dtick=1, title={"text": "latents (log)"})
    return figure


def cosines(latents: pd.DataFrame) -> go.Figure:
    """Cosine of the decoder directions against delta_norm: all as a density, exclusive ones as points."""
    figure = _points(
        latents,
        x="delta_norm",
        y="decoder_cosine",
        x_range=(0.0, 1.0),
        y_range=(-1.0, 1.0),
        empty="No latent has both directions.",
    )
    figure.update_xaxes(title={"text": "delta_norm"})
    figure.update_yaxes(range=[-1.05, 1.05], title={"text": "cosine of base and tuned direction"})
    return figure


def norms(latents: pd.DataFrame) -> go.Figure:
    """Norm of the tuned against the base decoder direction, in the crosscoder's normalised space."""
    both = known(alive(latents), "norm_base", "norm_tuned")
    largest = [float(values(both, name).max(initial=0.0)) for name in ("norm_base", "norm_tuned")]
    reach = (0.0, 1.05 * max(*largest, 1e-6))
    figure = _points(
        latents,
        x="norm_base",
        y="norm_tuned",
        x_range=reach,
        y_range=reach,
        empty="No latent has both norms.",
    )
    figure.add_shape(
        type="line",
        x0=0,
        y0=0,
        x1=reach[1],
        y1=reach[1],
        line={"color": style.LINE, "width": 1, "dash": "dot"},
    )
    figure.update_xaxes(title={"text": "norm of the base direction"})
    figure.update_yaxes(title={"text": "norm of the tuned direction"})
    return figure
