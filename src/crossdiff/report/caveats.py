"""Caveats beside the figures: bounds by refusals, what was not measured, what was left out."""

from __future__ import annotations

from collections import Counter
from typing import Any

from crossdiff.annotation.results import ANSWERED
from crossdiff.core.exclusive_call import NU_ERROR, NU_RECONSTRUCTION
from crossdiff.io.tables import alive, values, where
from crossdiff.report import tables
from crossdiff.report.figures.stops import clause_text
from crossdiff.report.formatting import readable
from crossdiff.report.sources import ComparisonSource, PairSource, Sources

NULLS = "no null: how much two seeds of the same pair, or a model against itself, differ (action=studies)"
MATCHED = "no matching: which exclusive latents of one pair have a twin in the other"
MULTIVERSE = "no other analysis choices: annotators, prompts, thresholds"
RATES = "no behaviour rates: how often the models' own texts show a behaviour (known for the toy only)"


def refusals(comparison: ComparisonSource) -> dict[str, Any] | None:
    """Bounds of every class and category over the labels that refused latents could have."""
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
    """One line on what this run did not measure; None where it measured all."""
    facts = comparison.facts
    absent = [
        line
        for line, measured in (
            (NULLS, facts.get("nulls")),
            (MATCHED, facts.get("matched")),
            (MULTIVERSE, facts.get("multiverse")),
            (RATES, (comparison.rates or {}).get("behaviours")),
        )
        if not measured
    ]
    if not absent:
        return None
    return {
        "title": "Not measured in this run",
        "text": "; ".join(absent)[:1].upper() + "; ".join(absent)[1:] + ".",
    }


def no_interval(pair: PairSource) -> list[str]:
    """A warning where no latent is active in as many documents as an interval needs; else empty."""
    from crossdiff.core.jackknife import MIN_GROUPS  # imports torch, which a study's settings must not

    counts = values(alive(pair.latents), "n_documents")
    if len(counts) == 0 or not counts.max() < MIN_GROUPS:
        return []
    return [
        f"No latent is active in more than {int(counts.max())} documents and an interval needs {MIN_GROUPS}: "
        "there is none here, so no latent can be called exclusive. Give the corpus more documents."
    ]


def trained_too_short(sources: Sources) -> list[str]:
    """A line per pair whose training is too short for any finding."""
    lines = []
    for pair in sources.pairs.values():
        signature = pair.diagnostics.get("signature") or {}
        if signature.get("verdict") == "trained_too_short":
            lines.append(f"{pair.name}: {signature['sentence']}")
    return lines


def two_families(sources: Sources) -> list[str]:
    """A line per pair of two families, whose counts are by decoder norms alone."""
    return [
        f"{pair.name}: the two models are of two families, so that latents are counted by decoder norms "
        "alone; read the counts as an upper bound."
        for pair in sources.pairs.values()
        if pair.diagnostics.get("two_families")
    ]


def different_bases(sources: Sources) -> list[str]:
    """A warning where the pairs of a comparison have different bases; else empty."""
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
    """Whether two models are the same, by the fingerprints of their files, else by path and revision."""
    known = base["fingerprint"] and other["fingerprint"]
    source = ("fingerprint",) if known else ("path", "revision")
    return all(base[name] == other[name] for name in (*source, "adapter", "towards", "distance"))


Row = tuple[str, str, int]
"""Step, what, count."""


def set_aside(pair: PairSource) -> list[Row]:
    """Counts of everything that a step left out."""
    latents, selection = pair.latents, pair.selection
    rows = [
        ("train", "latents never active (dead)", len(where(latents, kind="dead"))),
        ("scale", "latents whose call is undecided", len(where(latents, call="undecided"))),
    ]
    for side, clauses in rejected_by_side(pair).items():
        rows += [
            ("scale", f"{side} side, stopped first by: {clause_text(clause)}", count)
            for clause, count in clauses.items()
        ]
    rows += [
        ("documents", f"latents not taken, {name}", count)
        for name, count in counts_in(selection.get("not_taken"))
    ]
    if "near_duplicates_dropped" in selection:
        rows.append(
            ("documents", "near-duplicate documents dropped", int(selection["near_duplicates_dropped"]))
        )
    return [*rows, *_without_answer(pair)]


def _without_answer(pair: PairSource) -> list[Row]:
    """Counts of exclusive latents without a label, by state, and of labelled ones with failed votes."""
    states, failed, stand_ins = pair.states(), Counter[str](), Counter[str]()
    for row in pair.annotations:
        if row["role"].startswith("exclusive") and row["state"] in ANSWERED:
            failed.update(list(row.get("failed_votes") or {}))
            stand_ins.update([row["annotator"]] if "refused by" in row["annotator"] else [])
    rows = [
        ("annotate", f"tuned-exclusive latents: {state.replace('_', ' ')}", count)
        for state, count in sorted(states.items())
        if state != "ok"
    ]
    rows += [
        ("annotate", f"labelled exclusive latents of which a vote was {state.replace('_', ' ')}", count)
        for state, count in sorted(failed.items())
    ]
    rows += [
        ("annotate", f"exclusive latents labelled by {name}", count)
        for name, count in sorted(stand_ins.items())
    ]
    if not pair.annotated:
        rows.append(
            ("annotate", "tuned-exclusive latents without annotations yet", len(pair.exclusive("tuned")))
        )
    return rows


def rejected_by_side(pair: PairSource) -> dict[str, dict[str, int]]:
    """Side -> clause -> latents it stopped first; an older flat table is the tuned side."""
    rejected = pair.diagnostics.get("rejected") or {}
    if any(not isinstance(value, dict) for value in rejected.values()):
        rejected = {"tuned": rejected}
    return {
        side: {clause: count for clause, count in clauses.items() if clause != "exclusive"}
        for side, clauses in rejected.items()
    }


def counts_in(value: Any) -> list[tuple[str, int]]:
    """Named counts of a dictionary, or one unnamed count."""
    match value:
        case dict():
            return [
                (str(name).replace("_", " "), int(count))
                for name, count in value.items()
                if count is not None
            ]
        case int():
            return [("all", value)]
    return []


def nu_limits(pair: PairSource) -> dict[str, float]:
    """The pair's thresholds of the call; the defaults where the manifest names none."""
    selection = pair.settings.get("selection") or {}
    return {
        "nu_error": float(selection.get("nu_error", NU_ERROR)),
        "nu_reconstruction": float(selection.get("nu_reconstruction", NU_RECONSTRUCTION)),
    }


def nu_caption(pair: PairSource) -> str:
    """What the pair's call asks of the two ratios."""
    selection = pair.settings.get("selection") or {}
    method, activation = selection.get("method", "minder"), selection.get("nu_activation")
    shade = "Shade: how many latents. Points: exclusive ones; click to read."
    within = " and ".join(f"|{name}| < {limit:g}" for name, limit in nu_limits(pair).items())
    if method == "norm":
        asked = f"calls rest on decoder norms alone. Dashed box: {within}, which latent scaling would ask for"
        return f"With selection=norm {asked}. {shade}"
    also = "" if activation is None else f", |nu_activation| < {activation:g}"
    bin_or_side = "in that model's norm bin" if method == "both" else "on that model's side"
    return f"Exclusive: {within} (dashed box){also}, and delta_norm {bin_or_side}. {shade}"
