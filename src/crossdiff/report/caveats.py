"""Caveats beside the figures: how far refusals could move them, what was not or could not be measured."""

from __future__ import annotations

from typing import Any

from crossdiff.report import tables
from crossdiff.report.formatting import readable
from crossdiff.report.frames import alive, values
from crossdiff.report.sources import ComparisonSource, PairSource, Sources

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
    from crossdiff.core.jackknife import MIN_GROUPS  # with torch, which the settings of a study do without

    counts = values(alive(pair.latents), "n_documents")
    if len(counts) == 0 or not counts.max() < MIN_GROUPS:
        return []
    return [
        f"No latent is active in more than {int(counts.max())} documents and an interval needs {MIN_GROUPS}: "
        "there is none here, so no latent can be called exclusive. Give the corpus more documents."
    ]


def trained_too_short(sources: Sources) -> list[str]:
    """What comes before any other finding: the pairs whose training says nothing yet."""
    lines = []
    for pair in sources.pairs.values():
        signature = pair.diagnostics.get("signature") or {}
        if signature.get("verdict") == "trained_too_short":
            lines.append(f"{pair.name}: {signature['sentence']}")
    return lines


def different_bases(sources: Sources) -> list[str]:
    """A comparison of two pairs takes what they differ by for the fine-tuning; with two bases it is not."""
    if sources.comparison is None:
        return []
    names = (sources.comparison.reference, sources.comparison.treatment)
    reference, treatment = (sources.pairs[name].base if name in sources.pairs else None for name in names)
    if reference is None or treatment is None or _same(reference, treatment):
        return []
    return [
        f"The pairs have different base models ({names[0]}: {reference['path']}; {names[1]}: "
        f"{treatment['path']}), so that changes between them may come from the bases and not from the "
        "fine-tuning. Compare pairs that share one base (model_pair.base)."
    ]


def _same(base: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether the weights agree: by the fingerprints of the files, else by where they come from."""
    known = base["fingerprint"] and other["fingerprint"]
    source = ("fingerprint",) if known else ("path", "revision")
    return all(base[name] == other[name] for name in (*source, "adapter", "towards", "distance"))
