"""The delta table in one sentence that claims no more than its p-values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crossdiff.statistics.deltas import change_text
from crossdiff.taxonomy.scheme import RESERVED

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.05


def verdict(deltas: pd.DataFrame) -> str:
    """Which classes and categories change beyond chance after correction, or that none does."""
    empty = [
        side for side in ("reference", "treatment") if not len(deltas) or deltas[f"total_{side}"].iloc[0] == 0
    ]
    if empty:
        sides = " and the ".join(empty)
        return f"no comparison is possible: the {sides} pair has no labelled exclusive latent"
    tested = deltas.loc[~deltas["name"].isin(RESERVED)]
    if not (tested["count_reference"] + tested["count_treatment"]).any():
        return "no comparison is possible: no labelled exclusive latent of either pair is in a category"
    found = tested.loc[tested["q_value"] < LEVEL].sort_values(by=["q_value"], kind="stable")
    classes, categories = (found.loc[found["level"] == level] for level in ("class", "category"))
    if not len(found):
        smallest = tested.loc[tested["level"] == "class", "p_value"].min()
        return (
            f"no class and no category changes beyond chance at {LEVEL:.0%} after correction for many tests "
            f"(smallest class p = {smallest:.2f})"
        )
    parts = [
        f"{word} that change beyond chance: {_list(rows)}"
        for word, rows in (("classes", classes), ("categories", categories))
        if len(rows)
    ]
    return "; ".join(parts)


def _list(rows: pd.DataFrame) -> str:
    columns = (rows["name"], rows["count_reference"], rows["count_treatment"], rows["relative_change"])
    return ", ".join(
        f"{name} {change_text(int(reference), int(treatment), float(change))}"
        for name, reference, treatment, change in zip(*columns, strict=True)
    )
