"""The block of a pair's shared latents that one model uses more, with labels where they were asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from crossdiff.annotation.results import ANSWERED
from crossdiff.core.drift import drifted
from crossdiff.report.documents import by_latent, example_line
from crossdiff.report.formatting import between, readable, visible
from crossdiff.report.sources import PairSource
from crossdiff.report.tables import Cell, plain

N_UNLABELLED = 20
"""Rows of a run that collected no documents of drifted latents."""
SHARED = ("drifted", "control_shared")
"""Roles of shared latents with documents; a drifted latent that is a control stays one."""
FIGURES = ["Latent", "Drift, log", "95 % interval", "Used more by", "Factor", "Documents"]
NOTES = ["Category", "Label", "Keywords", "Example"]


def drifted_block(pair: PairSource) -> dict[str, Any] | None:
    """The most drifted shared latents first; None where no shared latent has betas to tell it."""
    found = drifted(pair.latents)
    if not found.latents:
        return None
    n_labelled = _n_labelled(pair, found.latents)
    shown = found.latents[: n_labelled or N_UNLABELLED]
    listed: Any = pair.latents[pair.latents["latent"].isin(shown)]
    known = {int(row["latent"]): row for row in listed.to_dict("records")}
    rows = [_figures(pair, known[latent], drift) for latent, drift in zip(shown, found.drift, strict=False)]
    if n_labelled:
        notes = _notes(pair)
        rows = [[*row, *notes(latent)] for row, latent in zip(rows, shown, strict=True)]
    return {
        "title": "Shared latents that one model uses more",
        "text": _text(len(shown), len(found.latents), found.n_unknown, labelled=n_labelled > 0),
        "table": plain(FIGURES + (NOTES if n_labelled else []), rows, numeric=[0, 1, 2, 4, 5]),
    }


def _n_labelled(pair: PairSource, ranked: list[int]) -> int:
    """How many of the ranking had documents collected: up to the last latent with the role `drifted`."""
    asked = {
        int(entry["latent"]) for entry in pair.selection.get("latents", []) if entry["role"] == "drifted"
    }
    return max((place for place, latent in enumerate(ranked, 1) if latent in asked), default=0)


def _figures(pair: PairSource, row: Mapping[Any, Any], drift: float) -> list[Any]:
    latent, low, high = int(row["latent"]), row.get("drift_low", math.nan), row.get("drift_high", math.nan)
    listed = any(int(entry["latent"]) == latent for entry in pair.selection.get("latents", []))
    side = "tuned" if drift > 0 else "base"
    return [
        Cell(str(latent), sort=float(latent), href=f"#latent-{pair.name}-{latent}" if listed else None),
        drift,
        Cell(between(low, high, "+.2f"), sort=low if math.isfinite(low) else None),
        side if drift else "neither",
        math.exp(abs(drift)),
        int(row["n_documents"]),
    ]


def _notes(pair: PairSource) -> Any:
    """Latent -> its category, label, keywords and example line as cells."""
    rows = {int(row["latent"]): row for row in pair.annotations if row["role"] in SHARED}
    documents = by_latent(pair.examples if pair.top is None else pair.top)

    def of(latent: int) -> list[Cell | None]:
        row = rows.get(latent, {})
        words = [str(word) for word in row.get("keywords") or []]
        answered = row.get("state") in ANSWERED
        category, told = (row.get("category"), row.get("label")) if answered else (None, row.get("state"))
        windows = documents.get(latent)
        pieces = example_line(windows, [word.lower() for word in words]) if windows else []
        return [
            Cell(readable(str(category))) if category else None,
            Cell(readable(str(told))) if told else None,
            Cell(visible(", ".join(words[:6]))) if words else None,
            Cell("".join(piece["text"] for piece in pieces), pieces=pieces) if pieces else None,
        ]

    return of


def _text(n_shown: int, n_ranked: int, n_unknown: int, *, labelled: bool) -> str:
    text = (
        f"The {n_shown:,} with the surest drift of {n_ranked:,} shared latents. Drift is the natural "
        "logarithm of how many times as strongly the tuned model uses a latent (mean over both directions as "
        "probes); "
        "these latents are called exclusive to neither model and enter no count and no change of categories."
    )
    if n_unknown:
        text += f" {n_unknown:,} more have no drift: a beta is not above 0."
    return text if labelled else f"{text} Give documents.n_drifted=50 for labels and documents."
