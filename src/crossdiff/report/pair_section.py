"""The page's section of one pair: figures of merit, warnings, charts with table twins, tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from crossdiff.core.exclusive_call import NORM_BINS
from crossdiff.io.tables import alive, known, values, where
from crossdiff.report import figures, sentences, tables
from crossdiff.report.caveats import nu_caption, nu_limits, rejected_by_side
from crossdiff.report.figures.stops import clause_text
from crossdiff.report.figures.training import panels
from crossdiff.report.formatting import number, share
from crossdiff.report.sources import PairSource
from crossdiff.report.style import height_of
from crossdiff.report.summary import pair_summary

Chart = dict[str, Any]


def pair_section(
    pair: PairSource, provenance: Sequence[dict[str, Any]], drawn: dict[str, Any]
) -> dict[str, Any]:
    """Template context of a pair; its figures are added to `drawn`."""
    charts, unknown = [], sentences.unknown_charts(pair)
    found = (*_selection_charts(pair), *_geometry_charts(pair), _training_chart(pair))
    for chart in (chart for chart in found if chart["name"] not in unknown):
        key = f"{chart['name']}-{pair.name}"
        drawn[key] = figure = chart.pop("figure")
        charts.append({"table": None, "wide": False, **chart, "name": key, "height": height_of(figure)})
    return {
        "name": pair.name,
        "tiles": pair_tiles(pair),
        "signatures": sentences.failure_signatures(pair),
        "charts": charts,
        "blocks": [block for block in (_shrinkage(pair), _twins(pair), _tokens(pair, provenance)) if block],
    }


def pair_tiles(pair: PairSource) -> list[dict[str, str]]:
    """FVE, L0, dead share and the exclusive counts."""
    facts = pair_summary(pair)
    trained = f"; trained for k = {facts['k']}" if facts["k"] else ""
    entries = (
        ("FVE, base", _decimals(facts["fve_base"]), _fve_note(facts["fve_without_first_base"])),
        ("FVE, tuned", _decimals(facts["fve_tuned"]), _fve_note(facts["fve_without_first_tuned"])),
        ("L0", number(facts["l0"]), f"active latents per token{trained}"),
        ("Dead", share(facts["dead_share"]), f"of {facts['n_latents']:,} latents"),
        ("Tuned-exclusive", number(facts["n_exclusive"]), f"passed {pair.passed}"),
        ("Base-exclusive", number(facts["n_exclusive_base"]), f"passed {pair.passed}"),
        ("Undecided", number(facts["n_undecided"]), "too little evidence for a call"),
    )
    return [{"name": name, "value": value, "note": note} for name, value, note in entries]


def _fve_note(without_first: float | None) -> str:
    rest = "" if without_first is None else f"; {without_first:.3f} without the first token of each document"
    return f"variance explained on held-out tokens, 1 is perfect{rest}"


def _decimals(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _selection_charts(pair: PairSource) -> list[Chart]:
    latents, limits = pair.latents, nu_limits(pair)
    exclusive = where(latents, call="exclusive")
    columns = ["nu_error", "nu_reconstruction", "delta_norm", "density", "n_documents"]
    rejected = rejected_by_side(pair).get("tuned", {})
    charts = [
        {
            "name": "delta-norm",
            "title": "Which model a latent belongs to, by decoder norm",
            "caption": "Alive latents. Norms alone mislead: by default latent scaling has to agree.",
            "figure": figures.delta_norm(latents),
            "table": _norm_kinds(pair),
        },
        {
            "name": "nu",
            "title": "Latent scaling",
            "caption": nu_caption(pair),
            "figure": figures.nu_scatter(latents, **limits),
            "table": tables.exclusive(pair.name, exclusive, columns),
        },
    ]
    if rejected:
        charts.append(
            {
                "name": "stops",
                "title": "What stopped the others",
                "caption": "Each latent counted at the first clause that stopped it, tuned side.",
                "figure": figures.stops(rejected, n_exclusive=len(pair.exclusive("tuned")), side="tuned"),
                "table": _clauses(pair),
            }
        )
    return charts


def _geometry_charts(pair: PairSource) -> list[Chart]:
    latents = pair.latents
    exclusive = where(latents, call="exclusive")
    return [
        {
            "name": "density",
            "title": "How often latents fire",
            "caption": "Share of tokens on which a latent is active.",
            "figure": figures.density(latents),
            "table": _quantiles(pair, "density"),
        },
        {
            "name": "norms",
            "title": "Norms of the two directions",
            "caption": "Decoder norms in normalised space; on the dotted line they are equal.",
            "figure": figures.norms(latents),
            "table": tables.exclusive(pair.name, exclusive, ["norm_base", "norm_tuned", "delta_norm"]),
        },
        {
            "name": "cosines",
            "title": "Do the two directions agree?",
            "caption": "Cosine of a latent's base and tuned direction against delta_norm.",
            "figure": figures.cosines(latents),
            "table": _quantiles(pair, "decoder_cosine"),
        },
    ]


def _training_chart(pair: PairSource) -> Chart:
    table = None
    if pair.metrics is not None and len(pair.metrics):
        rows = []
        for panel, columns in panels(pair.metrics).items():
            for column in columns:
                recorded = values(known(pair.metrics, column), column)
                rows.append((panel, column, float(recorded[0]), float(recorded[-1])))
        table = tables.plain(["Panel", "Quantity", "First", "Last"], rows, numeric=[2, 3])
    return {
        "name": "training",
        "title": "Training",
        "caption": "Logged quantities over the optimizer step.",
        "figure": figures.training(pair.metrics, pair.training),
        "table": table,
        "wide": True,
    }


def _norm_kinds(pair: PairSource) -> tables.Table:
    ranges = {kind: f"{low:g} to {high:g}" for kind, (low, high) in NORM_BINS.items()}
    ranges |= {"other": "between", "dead": "–"}
    rows = [
        (name.replace("_", " "), bounds, len(where(pair.latents, kind=name)))
        for name, bounds in ranges.items()
    ]
    return tables.plain(["Kind", "delta_norm", "Latents"], rows, numeric=[2])


def _clauses(pair: PairSource) -> tables.Table:
    failing = pair.diagnostics.get("failing") or {}
    rows = [
        (side, clause_text(clause), first, (failing.get(side) or {}).get(clause))
        for side, clauses in rejected_by_side(pair).items()
        for clause, first in clauses.items()
    ]
    return tables.plain(["Side", "Clause", "Stopped first", "Holds for, in all"], rows, numeric=[2, 3])


def _quantiles(pair: PairSource, column: str) -> tables.Table:
    groups = {
        "alive": alive(pair.latents),
        "tuned-exclusive": pair.exclusive("tuned"),
        "base-exclusive": pair.exclusive("base"),
    }
    rows = []
    for name, frame in groups.items():
        given = values(known(frame, column), column)
        shown = np.quantile(given, [0.05, 0.25, 0.5, 0.75, 0.95]).tolist() if len(given) else [None] * 5
        rows.append((name, len(given), *shown))
    titles = ["Latents", "Count", "5 %", "25 %", "Median", "75 %", "95 %"]
    return tables.plain(titles, rows, numeric=range(1, 7))


def _shrinkage(pair: PairSource) -> dict[str, Any] | None:
    facts = pair.diagnostics
    if not facts.get("by_norm") or facts.get("two_families"):
        return None
    rows = [
        (side, facts["by_norm"][side], facts["shrinkage"].get(side), facts["decoupling"].get(side))
        for side in facts["by_norm"]
    ]
    halves = facts.get("split_half") or {}
    stable = "; ".join(
        f"{side}: {half['both']} in both halves, Jaccard {number(half['jaccard'])}"
        for side, half in halves.items()
        if half
    )
    return {
        "title": "What norms alone would have got wrong",
        "text": "Of the latents whose norm says one model only: how many the other model holds after all."
        + (f" Exclusive sets of two halves of the documents ({stable})." if stable else ""),
        "table": tables.plain(
            ["Side", "One model only by norm", "Complete shrinkage", "Latent decoupling"],
            rows,
            numeric=[1, 2, 3],
        ),
    }


def _twins(pair: PairSource) -> dict[str, Any] | None:
    twins = (pair.diagnostics.get("twins") or {}).get("pairs") or []
    if not twins:
        return None
    rows = [(twin["tuned"], twin["base"], twin["cosine"]) for twin in twins]
    return {
        "title": "Twins",
        "text": "A tuned-only and a base-only latent whose directions agree: one concept, two latents.",
        "table": tables.plain(["Tuned-only latent", "Base-only latent", "Cosine"], rows, numeric=[0, 1, 2]),
    }


def _tokens(pair: PairSource, provenance: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    entries = [entry for entry in provenance if entry.get("stage") == "tokens"]
    if not entries:
        return None
    counts = entries[0].get("counts") or {}
    numbers = {name: value for name, value in counts.items() if isinstance(value, int | float)}
    rows: list[tuple[str, Any]] = [(name.replace("_", " "), value) for name, value in numbers.items()]
    rows += [(f"{kind} tokens", value) for kind, value in (counts.get("tokens_per_kind") or {}).items()]
    for name, value in (pair.settings.get("mask") or {}).items():
        rows.append((f"mask: {name.replace('_', ' ')}", "none" if value is None else value))
    notices = sentences.joined(sentences.texts(counts.get("notices")))
    return {
        "title": "Tokens and mask",
        "text": notices or None,
        "table": tables.plain(["What", "Value"], rows, numeric=[1]),
    }
