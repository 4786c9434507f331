"""What each section of the page holds: tiles, charts with captions and table twins, blocks."""

from __future__ import annotations

import json
from typing import Any

from crossdiff.report import figures, sentences, tables
from crossdiff.report.sources import ComparisonSource, PairSource, Sources
from crossdiff.report.summary import pair_summary
from crossdiff.report.words import duration, finite, number, share


def page_context(sources: Sources) -> dict[str, Any]:
    """Everything the templates need except the packed latents."""
    drawn: dict[str, Any] = {}
    comparison = None if sources.comparison is None else _comparison(sources.comparison, drawn)
    pairs = [_pair(pair, drawn) for pair in sources.pairs.values()]
    return {
        "headline": sentences.headline(sources),
        "leads": sentences.leads(sources),
        "tiles": _overview_tiles(sources),
        "comparison": comparison,
        "pairs": pairs,
        "figures": drawn,
        "explorer_note": sentences.explorer_note(sources),
        "set_aside": _set_aside(sources),
        "steps": _steps(sources),
        "settings": [
            {
                "name": f"Settings: {entry.get('stage', '?')} {entry.get('label', '')}".strip(),
                "text": json.dumps(entry.get("inputs", {}), indent=1, ensure_ascii=False),
            }
            for entry in sources.provenance
        ],
    }


def _tile(name: str, value: str, note: str = "") -> dict[str, str]:
    return {"name": name, "value": value, "note": note}


def _overview_tiles(sources: Sources) -> list[dict[str, str]]:
    tiles = []
    for pair in sources.pairs.values():
        facts = pair_summary(pair)
        labelled = "no annotations yet" if not pair.annotated else f"{facts['n_labelled']:,} labelled"
        tiles.append(
            _tile(
                f"{pair.name}: tuned-exclusive",
                number(facts["n_exclusive"]),
                f"of {len(pair.latents):,}; {labelled}",
            )
        )
    return tiles


def _comparison(comparison: ComparisonSource, drawn: dict[str, Any]) -> dict[str, Any]:
    planted = {row["name"]: row["change"] for row in comparison.facts.get("planted") or []}
    drawn["changes"] = figures.changes(comparison.deltas, planted=planted)
    caption = (
        f"Each bar is the share of labelled exclusive latents in {comparison.treatment} over that in "
        f"{comparison.reference}; right of it the change and the counts, treatment : reference. "
        "A hollow bar's 95 % interval holds no change at all."
    )
    return {
        "reference": comparison.reference,
        "treatment": comparison.treatment,
        "caption": caption,
        "table": tables.deltas(comparison.deltas, planted=planted),
        "lines": sentences.comparison_lines(comparison),
        "blocks": [],
    }


def _pair(pair: PairSource, drawn: dict[str, Any]) -> dict[str, Any]:
    facts = pair_summary(pair)
    charts = [_chart(pair, drawn, *entry) for entry in _pair_figures(pair)]
    return {
        "name": pair.name,
        "tiles": [
            _tile("FVE base", number(facts["fve_base"]), "1 is perfect, held-out tokens"),
            _tile("FVE tuned", number(facts["fve_tuned"]), "1 is perfect, held-out tokens"),
            _tile(
                "L0", number(facts["l0"]), f"active latents per token; trained for k = {number(facts['k'])}"
            ),
            _tile("Dead latents", share(facts["dead_share"]), f"of {facts['n_latents']:,}"),
            _tile("Tuned-exclusive", number(facts["n_exclusive"]), "passed latent scaling"),
            _tile("Base-exclusive", number(facts["n_exclusive_base"]), "passed latent scaling"),
        ],
        "signatures": sentences.failure_signatures(pair),
        "charts": charts,
        "blocks": [],
    }


def _pair_figures(pair: PairSource) -> list[tuple[str, str, Any, str, Any, bool]]:
    latents = pair.latents
    limits = nu_limits(pair)
    known = latents[latents["call"] == "exclusive"]
    nus = ["nu_error", "nu_reconstruction", "delta_norm", "density"]
    directions = ["norm_base", "norm_tuned", "delta_norm", "decoder_cosine"]
    return [
        (
            "delta-norm", "Which model a latent belongs to, by decoder norm", figures.delta_norm(latents),
            "Alive latents by delta_norm. Norms alone mislead: a latent counts as exclusive only after latent scaling.",
            _norm_bins(pair), False,
        ),
        (
            "nu", "Latent scaling", figures.nu_scatter(latents, **limits),
            f"Exclusive means |nu_error| < {limits['nu_error']:g} and |nu_reconstruction| < {limits['nu_reconstruction']:g}"
            " and delta_norm on that model's side. Shade: how many latents (log). Points: exclusive; click one to read it.",
            tables.exclusive(pair.name, known, nus), False,
        ),
        (
            "density", "How often latents fire", figures.density(latents),
            "Share of tokens on which a latent is active.", None, False,
        ),
        (
            "norms", "Norms of the two directions", figures.norms(latents),
            "Decoder norms in the crosscoder's normalised space.", tables.exclusive(pair.name, known, directions), False,
        ),
        (
            "cosines", "Do the two directions agree?", figures.cosines(latents),
            "Cosine of a latent's base and tuned direction against delta_norm.", None, False,
        ),
        ("training", "Training", figures.training(pair.metrics), "Logged quantities over the optimizer step.", None, True),
    ]  # fmt: skip


def nu_limits(pair: PairSource) -> dict[str, float]:
    """The thresholds this pair was selected with; method.md section 4's where the manifest names none."""
    selection = pair.settings.get("selection") or {}
    return {
        "nu_error": float(selection.get("nu_error", 0.2)),
        "nu_reconstruction": float(selection.get("nu_reconstruction", 0.5)),
    }


def _chart(
    pair: PairSource, drawn: dict[str, Any], name: str, title: str, figure: Any, caption: str, *rest: Any
) -> dict[str, Any]:
    key = f"{name}-{pair.name}"
    drawn[key] = figure
    table, wide = rest
    height = int(figure.layout.height or 340)
    return {"name": key, "title": title, "caption": caption, "height": height, "table": table, "wide": wide}


def _norm_bins(pair: PairSource) -> tables.Table:
    kinds = pair.latents["kind"].value_counts()
    ranges = {
        "base_only": "0 to 0.1",
        "shared": "0.4 to 0.6",
        "tuned_only": "0.9 to 1",
        "other": "between",
        "dead": "–",
    }
    rows = [(name.replace("_", " "), bounds, int(kinds.get(name, 0))) for name, bounds in ranges.items()]
    return tables.plain(["Kind", "delta_norm", "Latents"], rows, numeric=[2])


def _set_aside(sources: Sources) -> tables.Table:
    rows = [(pair.name, *row) for pair in sources.pairs.values() for row in sentences.set_aside(pair)]
    return tables.plain(["Pair", "Step", "What", "Count"], rows, numeric=[3])


def _steps(sources: Sources) -> tables.Table:
    rows = [
        (
            f"{entry.get('stage', '?')} {entry.get('label', '')}".strip(),
            entry.get("key"),
            tables.Cell(duration(entry.get("seconds")), sort=entry.get("seconds")),
            entry.get("commit") or "not in a checkout",
            "; ".join(f"{name} {value}" for name, value in _scalars(entry.get("counts")).items()),
        )
        for entry in sources.provenance
    ]
    return tables.plain(["Step", "Key", "Time", "Commit", "Counts"], rows, numeric=[2])


def _scalars(counts: Any) -> dict[str, str]:
    if not isinstance(counts, dict):
        return {}
    return {
        name: number(value, 4)
        for name, value in finite(counts).items()
        if isinstance(value, int | float | str) or value is None
    }
