"""What refusals could hide: the change of every class if all refused latents were, or were not, of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crossdiff.taxonomy.deltas import relative_change

if TYPE_CHECKING:
    import pandas as pd


def refusal_bounds(deltas: pd.DataFrame, *, reference: int, treatment: int) -> list[dict[str, Any]]:
    """Lowest and highest change per row of the delta table; `reference` and `treatment` count refusals.

    Refused latents join the totals. Lowest: all of the reference's are in the class, none of the
    treatment's; highest: the other way round. None for a change that is not finite. Empty without
    refusals. (Toxic documents are refused most, and they are the Safety class: annotation.md section 1.)
    """
    if reference == 0 and treatment == 0:
        return []
    rows = []
    columns = ("level", "name", "count_reference", "total_reference", "count_treatment", "total_treatment")
    for level, name, *counts in zip(*(deltas[column] for column in columns), strict=True):
        count_r, total_r, count_t, total_t = (int(count) for count in counts)
        total_r, total_t = total_r + reference, total_t + treatment
        if min(total_r, total_t) == 0:
            continue
        low = relative_change((count_r + reference) / total_r, count_t / total_t)
        high = relative_change(count_r / total_r, (count_t + treatment) / total_t)
        rows.append({"level": level, "name": name, "low": _finite(low), "high": _finite(high)})
    return rows


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None
