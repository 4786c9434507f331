"""The changes beyond chance that the first screen names, those with more and with less apart."""

from __future__ import annotations

import math
from typing import Any

from crossdiff.report.delta_rows import DeltaRow, delta_rows
from crossdiff.report.formatting import change_text, readable, visible
from crossdiff.report.sources import Sources
from crossdiff.statistics.verdict import claims

N_CHANGES = 6
"""Most changes listed per direction; the chart below has the others."""


def changed(sources: Sources) -> dict[str, Any] | None:
    """Categories and classes beyond chance with more and with less in the treatment; None without any.

    Categories come before classes, by falling evidence; counts are treatment to reference.
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
                "rows": [_change(row) for row in listed[:N_CHANGES]],
                "rest": f"and {len(listed) - N_CHANGES} more" if len(listed) > N_CHANGES else None,
            }
            for kind, listed in sides.items()
            if listed
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
    """`+90 to +461 %`, in whole percent; `no interval` where a bound is unknown."""
    low, high = interval
    if math.isnan(low) or math.isnan(high):
        return "no interval"
    return f"{change_text(low, digits=0).removesuffix(' %')} to {change_text(high, digits=0)}"
