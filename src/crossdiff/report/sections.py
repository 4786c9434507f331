"""The content of the page's sections; pair_section and comparison_section have those of their name."""

from __future__ import annotations

import json
from typing import Any

from crossdiff.annotation.results import framing_sentence
from crossdiff.report import human_check, sentences, tables
from crossdiff.report.caveats import set_aside
from crossdiff.report.comparison_section import comparison_section
from crossdiff.report.concepts import block, concepts
from crossdiff.report.drifted import drifted_block
from crossdiff.report.first_screen import first_screen
from crossdiff.report.formatting import duration, finite, number, tile, visible
from crossdiff.report.pair_section import pair_section
from crossdiff.report.sources import Sources
from crossdiff.report.summary import pair_summary
from crossdiff.statistics.verdict import n_claimed


def page_context(sources: Sources) -> dict[str, Any]:
    """The templates' context without the packed latents; `figures`: name -> plotly figure."""
    drawn: dict[str, Any] = {}
    comparison = None if sources.comparison is None else comparison_section(sources.comparison, drawn)
    pairs = [pair_section(pair, sources.provenance, drawn) for pair in sources.pairs.values()]
    known = {name: concepts(sources.crosscoders(name)) for name in sources.pairs}
    for section, name in zip(pairs, sources.pairs, strict=True):
        section["blocks"] = [
            *filter(
                None, [block(sources.crosscoders(name), known[name]), drifted_block(sources.pairs[name])]
            ),
            *section["blocks"],
        ]
    return {
        "headline": visible(sentences.headline(sources)),
        "undone_by": [visible(line) for line in sentences.undone_by(sources)],
        "leads": [visible(line) for line in sentences.leads(sources)],
        "first": first_screen(sources),
        "tiles": overview_tiles(sources),
        "comparison": comparison,
        "pairs": pairs,
        "concepts": known,
        "figures": drawn,
        "explorer_note": sentences.explorer_note(sources),
        "set_aside": _set_aside(sources),
        "annotation": annotation_table(sources),
        "framing": framing_sentence(sources.annotate.get("framing") or {}),
        "human_check": human_check.block(sources.human_check),
        "steps": _steps(sources),
        "software": _software(sources),
        "settings": [
            {
                "name": f"Settings: {entry.get('stage', '?')} {entry.get('label', '')}".strip(),
                "text": visible(json.dumps(entry.get("inputs", {}), indent=1, ensure_ascii=False)),
            }
            for entry in sources.provenance
        ],
    }


def overview_tiles(sources: Sources) -> list[dict[str, str]]:
    """The highlighted figures of the first screen."""
    tiles = []
    for pair in sources.pairs.values():
        facts = pair_summary(pair)
        labelled = f"{facts['n_labelled']:,} labelled" if pair.annotated else "no annotations yet"
        note = f"of {len(pair.latents):,} latents; {labelled}"
        tiles.append(tile(f"{pair.name}: tuned-exclusive", number(facts["n_exclusive"]), note))
    if sources.comparison is not None:
        n_changed, n_rows = n_claimed(sources.comparison.deltas, "category")
        tiles.append(
            tile("Categories changed", f"{n_changed} of {n_rows}", "beyond chance, after correction")
        )
        tiles += _recovery_tile(sources.comparison.facts.get("spearman"))
    return tiles


def _recovery_tile(spearman: Any) -> list[dict[str, str]]:
    match spearman:
        case {"rho": float(rho), "ci_low": low, "ci_high": high}:
            bounds = "" if low is None else f"95 % interval {low:+.2f} to {high:+.2f}; ".replace("-", "−")
            return [
                tile(
                    "Rank correlation",
                    f"{rho:+.2f}".replace("-", "−"),
                    f"{bounds}recovered with planted change",
                )
            ]
        case float(rho):
            return [
                tile("Rank correlation", f"{rho:+.2f}".replace("-", "−"), "recovered with planted change")
            ]
    return []


def annotation_table(sources: Sources) -> tables.Table | None:
    """Counts of answers by pair, role and state; None before annotation."""
    counts: dict[tuple[str, str, str], int] = {}
    for pair in sources.pairs.values():
        for row in pair.annotations:
            key = (pair.name, row["role"].replace("_", " "), row["state"].replace("_", " "))
            counts[key] = counts.get(key, 0) + 1
    if not counts:
        return None
    rows = [(*key, count) for key, count in sorted(counts.items())]
    return tables.plain(["Pair", "Role", "State", "Latents"], rows, numeric=[3])


def _set_aside(sources: Sources) -> tables.Table:
    rows = [(pair.name, *row) for pair in sources.pairs.values() for row in set_aside(pair)]
    return tables.plain(["Pair", "Step", "What", "Count"], rows, numeric=[3])


def _steps(sources: Sources) -> tables.Table:
    rows = [
        (
            f"{entry.get('stage', '?')} {entry.get('label', '')}".strip(),
            entry.get("key"),
            tables.Cell(duration(entry.get("seconds")), sort=entry.get("seconds")),
            entry.get("peak_memory_mb"),
            entry.get("finished"),
            (entry.get("commit") or "not in a checkout")[:12],
            "; ".join(f"{name} {value}" for name, value in _scalars(entry.get("counts")).items()),
        )
        for entry in sources.provenance
    ]
    titles = ["Step", "Key", "Time", "Peak MB", "Finished", "Commit", "Counts"]
    return tables.plain(titles, rows, numeric=[2, 3])


def _software(sources: Sources) -> str:
    versions: dict[str, set[str]] = {}
    for entry in sources.provenance:
        for name, version in (entry.get("software") or {}).items():
            versions.setdefault(name, set()).add(str(version))
    return "; ".join(f"{name} {' and '.join(sorted(releases))}" for name, releases in versions.items())


def _scalars(counts: Any) -> dict[str, str]:
    if not isinstance(counts, dict):
        return {}
    return {
        name.replace("_", " "): number(value, 4)
        for name, value in finite(counts).items()
        if isinstance(value, int | float) or (isinstance(value, str) and len(value) < 40)
    }
