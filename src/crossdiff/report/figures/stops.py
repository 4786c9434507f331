"""Counts of latents by the clause that stopped their exclusive call."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING

from crossdiff.report import style

if TYPE_CHECKING:
    import plotly.graph_objects as go

LINE = 24
"""Most characters of a clause per line, so that bars have room on a phone."""
CLAUSES = {
    "dead": "never active",
    "min_tokens": "too few tokens",
    "min_documents": "too few documents",
    "norm_bin": "decoder norm not in the outer bin",
    "delta_norm": "decoder norm on the other side",
    "nu_error": "complete shrinkage (nu_error)",
    "nu_reconstruction": "latent decoupling (nu_reconstruction)",
    "nu_activation": "the other model holds it too (nu_activation)",
    "nu_error_straddles": "nu_error's interval holds the limit",
    "nu_reconstruction_straddles": "nu_reconstruction's interval holds the limit",
    "nu_activation_straddles": "nu_activation's interval holds the limit",
    "beta_error_not_positive": "own beta_error not positive",
    "beta_error_interval": "own beta_error not clearly positive",
    "beta_reconstruction_not_positive": "own beta_reconstruction not positive",
    "beta_reconstruction_interval": "own beta_reconstruction not clearly positive",
    "beta_activation_not_positive": "own beta_activation not positive",
    "beta_activation_interval": "own beta_activation not clearly positive",
}


def clause_text(clause: str) -> str:
    """A clause of the exclusive call in words."""
    return CLAUSES.get(clause, clause.replace("_", " "))


def stops(rejected: dict[str, int], *, n_exclusive: int, side: str) -> go.Figure:
    """Latents by the first clause that stopped them, in the clauses' order, and those that passed."""
    import plotly.graph_objects as go

    rows = [
        ("<br>".join(wrap(clause_text(clause), LINE)), count) for clause, count in rejected.items() if count
    ]
    rows.append((f"{side}-exclusive", n_exclusive))
    figure = go.Figure()
    figure.add_bar(
        orientation="h",
        y=[name for name, _ in rows],
        x=[count or None for _, count in rows],
        marker={"color": [style.BAR] * (len(rows) - 1) + [style.POINT]},
        text=[f"{count:,}" for _, count in rows],
        textposition="outside",
        cliponaxis=False,
        hovertemplate="%{y}: %{x:,} latents<extra></extra>",
    )
    style.layout(
        figure,
        height=max(400, 110 + 32 * len(rows)),
        showlegend=False,
        margin={"l": 20, "r": 64, "t": 10, "b": 52},
        bargap=0.3,
    )
    figure.update_yaxes(
        autorange="reversed", ticks="", showline=False, showgrid=False, automargin=True, tickfont={"size": 12}
    )
    figure.update_xaxes(type="log", dtick=1, title={"text": "latents (log)"})
    return figure
