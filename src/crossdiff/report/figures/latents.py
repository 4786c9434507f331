"""Figures over all latents of a pair: everything is binned here, so 114,688 latents draw like 200."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from crossdiff.report.figures import style

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

BANDS = ((0.0, 0.1, "base only"), (0.4, 0.6, "shared"), (0.9, 1.0, "tuned only"))
NU_RANGE = (-0.5, 1.5)


def delta_norm(latents: pd.DataFrame) -> go.Figure:
    """Histogram of delta_norm of all alive latents, log counts, with the thresholds of method.md section 3."""
    import plotly.graph_objects as go

    values = latents.loc[latents["kind"] != "dead", "delta_norm"].dropna().to_numpy()
    figure = style.layout(go.Figure(), height=340, showlegend=False, bargap=0)
    if not len(values):
        return style.note(figure, "No latent of this pair is alive.")
    counts, edges = np.histogram(values, bins=100, range=(0.0, 1.0))
    figure.add_bar(
        x=((edges[:-1] + edges[1:]) / 2).round(4).tolist(),
        y=[int(count) if count else None for count in counts],
        width=0.01,
        marker={"color": style.BAR, "line": {"width": 0}},
        hovertemplate="delta_norm %{x:.3f}<br>%{y:,} latents<extra></extra>",
    )
    for low, high, name in BANDS:
        figure.add_vrect(x0=low, x1=high, fillcolor=style.BAND, layer="below", line_width=0)
        figure.add_annotation(
            x=(low + high) / 2,
            y=1,
            yref="paper",
            yanchor="bottom",
            showarrow=False,
            text=name,
            font={"size": 11, "color": style.MUTED},
        )
    for line in (0.1, 0.4, 0.6, 0.9):
        figure.add_vline(x=line, line={"color": style.LINE, "width": 1, "dash": "dot"})
    figure.update_xaxes(range=[0, 1], title={"text": "delta_norm (0 base only, ½ shared, 1 tuned only)"})
    figure.update_yaxes(type="log", dtick=1, title={"text": "latents (log)"})
    return figure


def nu_scatter(latents: pd.DataFrame, *, nu_error: float, nu_reconstruction: float) -> go.Figure:
    """nu_reconstruction against nu_error: the crowd as a density, exclusive latents as points (their ids in
    customdata, so that a click can open one), the accepted region shaded.
    """
    import plotly.graph_objects as go

    figure = style.layout(go.Figure(), height=460)
    known = latents[["latent", "nu_reconstruction", "nu_error", "delta_norm"]].dropna()
    if known.empty:
        return style.note(figure, "No latent has both ratios.")
    _crowd(figure, known["nu_reconstruction"], known["nu_error"], NU_RANGE, NU_RANGE)
    figure.add_shape(
        type="rect",
        x0=-nu_reconstruction,
        x1=nu_reconstruction,
        y0=-nu_error,
        y1=nu_error,
        line={"color": style.POINT, "width": 1.2, "dash": "dash"},
    )
    _exclusive_points(figure, latents, x="nu_reconstruction", y="nu_error")
    figure.update_xaxes(range=NU_RANGE, title={"text": "nu_reconstruction (high: decoupled)"}, zeroline=False)
    figure.update_yaxes(range=NU_RANGE, title={"text": "nu_error (high: complete shrinkage)"}, zeroline=False)
    return figure


def _crowd(
    figure: go.Figure, x: pd.Series, y: pd.Series, x_range: tuple[float, float], y_range: tuple[float, float]
) -> None:
    bins = 80
    counts, x_edges, y_edges = np.histogram2d(
        x.to_numpy(), y.to_numpy(), bins=bins, range=[list(x_range), list(y_range)]
    )
    shade = np.where(counts.T > 0, np.log10(np.maximum(counts.T, 1)), np.nan)
    figure.add_heatmap(
        x=np.round((x_edges[:-1] + x_edges[1:]) / 2, 4).tolist(),
        y=np.round((y_edges[:-1] + y_edges[1:]) / 2, 4).tolist(),
        z=[[round(float(v), 2) if np.isfinite(v) else None for v in line] for line in shade],
        customdata=[[int(v) for v in line] for line in counts.T],
        colorscale=[list(stop) for stop in style.CROWD],
        showscale=False,
        hovertemplate="%{customdata:,} latents here<extra></extra>",
        name="all latents",
    )


def _exclusive_points(figure: go.Figure, latents: pd.DataFrame, *, x: str, y: str) -> None:
    both = (("tuned", style.POINT, "circle"), ("base", style.BASE_POINT, "square"))
    for model, colour, symbol in both:
        part = latents[(latents["call"] == "exclusive") & (latents["exclusive_to"] == model)]
        if part.empty:
            continue
        suffix = "_baseprobe" if model == "base" and f"{x}_baseprobe" in part and x.startswith("nu_") else ""
        figure.add_scatter(
            mode="markers",
            x=part[x + suffix].round(4).tolist(),
            y=part[y + suffix].round(4).tolist(),
            customdata=part["latent"].astype(int).tolist(),
            name=f"{model}-exclusive ({len(part)})",
            marker={"color": colour, "symbol": symbol, "size": 8, "line": {"color": style.PAPER, "width": 1}},
            hovertemplate=f"latent %{{customdata}}<br>{x} %{{x:.3f}}<br>{y} %{{y:.3f}}"
            "<br>click to read it<extra></extra>",
        )


def density(latents: pd.DataFrame) -> go.Figure:
    """Histogram of log10 density (share of tokens that fire a latent): all alive latents, and the exclusive."""
    import plotly.graph_objects as go

    figure = style.layout(go.Figure(), height=340, barmode="overlay", bargap=0)
    alive = latents[(latents["kind"] != "dead") & (latents["density"] > 0)]
    if alive.empty:
        return style.note(figure, "No latent of this pair is alive.")
    logs = np.log10(alive["density"].to_numpy())
    edges = np.linspace(np.floor(logs.min() * 2) / 2, 0.0, 61)
    exclusive = (alive["call"] == "exclusive").to_numpy()
    for name, values, colour in (("alive", logs, style.BAR), ("exclusive", logs[exclusive], style.POINT)):
        counts, _ = np.histogram(values, bins=edges)
        figure.add_bar(
            x=((edges[:-1] + edges[1:]) / 2).round(4).tolist(),
            y=[int(count) if count else None for count in counts],
            width=float(edges[1] - edges[0]),
            name=f"{name} ({len(values):,})",
            marker={"color": colour, "line": {"width": 0}},
            hovertemplate=f"{name}: %{{y:,}} latents<br>density 10^%{{x:.2f}}<extra></extra>",
        )
    ticks = list(range(int(np.floor(edges[0])), 1))
    figure.update_xaxes(
        tickvals=ticks,
        ticktext=["1" if tick == 0 else f"10<sup>{tick}</sup>" for tick in ticks],
        title={"text": "density (share of tokens that fire the latent)"},
    )
    figure.update_yaxes(type="log", dtick=1, title={"text": "latents (log)"})
    return figure


def cosines(latents: pd.DataFrame) -> go.Figure:
    """Cosine of the two decoder directions against delta_norm: crowd as density, exclusive latents as points."""
    import plotly.graph_objects as go

    figure = style.layout(go.Figure(), height=380)
    known = latents.loc[latents["kind"] != "dead", ["delta_norm", "decoder_cosine"]].dropna()
    if known.empty:
        return style.note(figure, "No latent has both directions.")
    _crowd(figure, known["delta_norm"], known["decoder_cosine"], (0.0, 1.0), (-1.0, 1.0))
    _exclusive_points(figure, latents, x="delta_norm", y="decoder_cosine")
    figure.update_xaxes(range=[0, 1], title={"text": "delta_norm"})
    figure.update_yaxes(range=[-1.05, 1.05], title={"text": "cosine of base and tuned direction"})
    return figure


def norms(latents: pd.DataFrame) -> go.Figure:
    """Norm of the tuned against the base decoder direction, in the crosscoder's normalised space."""
    import plotly.graph_objects as go

    figure = style.layout(go.Figure(), height=380)
    known = latents.loc[latents["kind"] != "dead", ["norm_base", "norm_tuned"]].dropna()
    if known.empty:
        return style.note(figure, "No latent has both norms.")
    reach = (0.0, float(known.to_numpy().max()) * 1.05)
    _crowd(figure, known["norm_base"], known["norm_tuned"], reach, reach)
    figure.add_shape(
        type="line",
        x0=0,
        y0=0,
        x1=reach[1],
        y1=reach[1],
        line={"color": style.LINE, "width": 1, "dash": "dot"},
    )
    _exclusive_points(figure, latents, x="norm_base", y="norm_tuned")
    figure.update_xaxes(range=reach, title={"text": "norm of the base direction"})
    figure.update_yaxes(range=reach, title={"text": "norm of the tuned direction"})
    return figure
