"""The changes of a comparison that the first screen names: those beyond chance, more and less apart."""

from __future__ import annotations

import math
from typing import Any

from crossdiff.report.delta_rows import DeltaRow, delta_rows
from crossdiff.report.formatting import change_text, readable, visible
from crossdiff.report.sources import Sources
from crossdiff.statistics.verdict import claims

N_CHANGES = 6
"""Changes that are listed of one direction; the others stand in the chart below."""


def changed(sources: Sources) -> dict[str, Any] | None:
    """The categories (and classes) beyond chance that the treatment has more of, and less of; None without.

    Categories come before classes and the surest first; counts are treatment to reference.
    """
    comparison = sources.comparison
    rows = [] if comparison is None else delta_rows(claims(comparison.deltas))
    if comparison is None or not rows:
        return None
    rows.sort(key=lambda row: row.is_class)
    names = [
        sources.pairs[name].tuned_name or name if name in sources.pairs else name
        for name in (comparison.treatment, comparison.reference)
    ]
    sides = {
        "more": [row for row in rows if row.is_new or row.change > 0],
        "less": [row for row in rows if not (row.is_new or row.change > 0)],
    }
    return {
        "sides": [
            {
                "kind": kind,
                "title": visible(f"{kind.capitalize()} in {names[0]} than in {names[1]}"),
                "rows": [_change(row) for row in crosscoders_of_side[:N_CHANGES]],
                "rest": f"and {len(crosscoders_of_side) - N_CHANGES} more"
                if len(crosscoders_of_side) > N_CHANGES
                else None,
            }
            for kind, crosscoders_of_side in sides.items()
            if crosscoders_of_side
        ],
        "note": visible(
            f"Change of the share of exclusive latents (95 % interval), latents {names[0]} : {names[1]}."
        ),
    }


def _change(row: DeltaRow) -> dict[str, Any]:
    reference, treatment = row.counts
    return {
        "name": readable(row.name) + (" (class)" if row.is_class else ""),
        "change": row.text if row.is_new else change_text(row.change, digits=0),
        "interval": between(row.interval),
        "counts": f"{treatment:,} : {reference:,}",
    }


def between(interval: tuple[float, float]) -> str:
    """`+90 to +461 %`, in whole percent; `no interval` where a bound is not known."""
    low, high = interval
    if math.isnan(low) or math.isnan(high):
        return "no interval"
    return f"{change_text(low, digits=0).removesuffix(' %')} to {change_text(high, digits=0)}"
