"""What refusals could hide: the change of every class if all refused latents were, or were not, of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from crossdiff.statistics.deltas import change_text, relative_change

if TYPE_CHECKING:
    import pandas as pd


def refusal_bounds(deltas: pd.DataFrame, *, reference: int, treatment: int) -> list[dict[str, Any]]:
    """Lowest and highest change per row of the delta table; `reference` and `treatment` count refusals.

    Refused latents join the totals. Lowest: all of the reference's are in the class, none of the
    treatment's; highest: the other way round. `low` and `high` are relative changes, None where they are not
    finite; the texts tell `new (6 vs 0)` from `none (0 vs 0)`. Empty without refusals. (Toxic documents are
    refused most, and they are the Safety class: docs/annotation.md.)
    """
    if reference == 0 and treatment == 0:
        return []
    rows = []
    columns = ("level", "name", "count_reference", "total_reference", "count_treatment", "total_treatment")
    for level, name, *counts in zip(*(deltas[column] for column in columns), strict=True):
        count_r, total_r, count_t, total_t = (int(count) for count in counts)
        totals = total_r + reference, total_t + treatment
        if min(totals) == 0:
            continue
        lowest = _bound("low", (count_r + reference, count_t), totals)
        highest = _bound("high", (count_r, count_t + treatment), totals)
        rows.append({"level": level, "name": name, **lowest, **highest})
    return rows


def _bound(end: str, counts: tuple[int, int], totals: tuple[int, int]) -> dict[str, Any]:
    change = relative_change(counts[0] / totals[0], counts[1] / totals[1])
    return {end: change if math.isfinite(change) else None, f"{end}_text": change_text(*counts, change)}
