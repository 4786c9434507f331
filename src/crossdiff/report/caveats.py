"""Caveats beside the figures: how far refusals could move them, what was not or could not be measured."""

from __future__ import annotations

from typing import Any

from crossdiff.core.jackknife import MIN_GROUPS
from crossdiff.report import tables
from crossdiff.report.formatting import readable
from crossdiff.report.frames import alive, values
from crossdiff.report.sources import ComparisonSource, PairSource

NULLS = "no null: how much two seeds of the same pair, or a model against itself, differ (action=studies)"
MATCHED = "no matching: which exclusive latents of one pair have a twin in the other"
MULTIVERSE = "no other analysis choices: annotators, prompts, thresholds"
RATES = "no behaviour rates: how often the models' own texts show a behaviour (known for the toy only)"


def refusals(comparison: ComparisonSource) -> dict[str, Any] | None:
    """Bounds of every class and category when refused latents are given to it or withheld from it."""
    bounds = comparison.facts.get("refusal_bounds")
    if not bounds:
        return None
    rows = [
        tables.Row(
            (tables.Cell(readable(row["name"])), *(_bound(row, end) for end in ("low", "high"))), row["level"]
        )
        for row in bounds
    ]
    columns = (tables.Column("Category"), tables.Column("Lowest", True), tables.Column("Highest", True))
    return {
        "title": "What refusals could hide",
        "text": "Change if every refused latent of the reference and none of the treatment belonged to the "
        "category (lowest), and the other way round (highest). Toxic documents are refused most.",
        "table": tables.Table(columns, tuple(rows)),
    }


def _bound(row: dict[str, Any], end: str) -> tables.Cell:
    return tables.Cell(row[f"{end}_text"], sort=row[end])


def not_measured(comparison: ComparisonSource) -> dict[str, Any] | None:
    """One line on what a reader may look for here in vain."""
    facts = comparison.facts
    absent = [
        line
        for line, there in (
            (NULLS, facts.get("nulls")),
            (MATCHED, facts.get("matched")),
            (MULTIVERSE, facts.get("multiverse")),
            (RATES, (comparison.rates or {}).get("behaviours")),
        )
        if not there
    ]
    if not absent:
        return None
    return {
        "title": "Not measured in this run",
        "text": "; ".join(absent)[:1].upper() + "; ".join(absent)[1:] + ".",
    }


def no_interval(pair: PairSource) -> list[str]:
    """What to do where no latent is active in as many documents as an interval needs."""
    counts = values(alive(pair.latents), "n_documents")
    if len(counts) == 0 or not counts.max() < MIN_GROUPS:
        return []
    return [
        f"No latent is active in more than {int(counts.max())} documents and an interval needs {MIN_GROUPS}: "
        "there is none here, so no latent can be called exclusive. Give the corpus more documents."
    ]
