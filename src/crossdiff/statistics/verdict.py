"""Conclusions from a delta table: claims, verdict, bounds of refusals, and the multiverse.

The multiverse is every defensible analysis beside the headline's, compared by the signs of the changes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from crossdiff.statistics.deltas import change_text, relative_change
from crossdiff.taxonomy.scheme import RESERVED, Taxonomy

if TYPE_CHECKING:
    import pandas as pd


LEVEL = 0.05
"""Probability of any claim, classes and categories together, where the pairs do not differ."""
FAMILIES = {"class": "classes", "category": "categories"}
CONTROLLED = (
    f"where the pairs do not differ, at most {LEVEL:.0%} of comparisons claim any change, classes and "
    "categories together"
)


def claims(deltas: pd.DataFrame) -> pd.DataFrame:
    """The rows that change beyond chance, classes first, the smallest q first.

    Classes (max-T p) and categories (Benjamini-Hochberg q) are two families of tests, each with a probability
    of any claim of at most `LEVEL` where nothing differs. Holm's step-down (Holm 1979, Scand. J. Statist.
    6:65) over the two keeps `LEVEL` for both: the family with the smaller smallest q is tested at LEVEL / 2,
    and if it claims anything the other at LEVEL.
    """
    import pandas as pd

    rows = deltas.loc[_tested(deltas) & deltas["q_value"].notna()].sort_values("q_value", kind="stable")
    families = {level: rows.loc[rows["level"] == level] for level in FAMILIES}
    waiting = sorted(
        (level for level in FAMILIES if len(families[level])),
        key=lambda level: families[level]["q_value"].iloc[0],
    )
    claimed = {level: family.iloc[:0] for level, family in families.items()}
    while waiting:
        limit, level = LEVEL / len(waiting), waiting.pop(0)
        claimed[level] = families[level].loc[families[level]["q_value"] < limit]
        if not len(claimed[level]):
            break
    return pd.concat(claimed.values())


def n_claimed(deltas: pd.DataFrame, level: str) -> tuple[int, int]:
    """Number of rows of a level (class or category) that change beyond chance, and number tested."""
    tested = sum(_tested(deltas) & (deltas["level"] == level))
    return sum(claims(deltas)["level"] == level), tested


def _tested(deltas: pd.DataFrame) -> NDArray[np.bool_]:
    return ~deltas["name"].isin(RESERVED).to_numpy(bool)


def verdict(deltas: pd.DataFrame, *, compared: str = "labelled exclusive latent") -> str:
    """The sentence that names the classes and categories that change beyond chance, if any.

    `compared` says which latents the table counts.
    """
    empty = [
        side for side in ("reference", "treatment") if not len(deltas) or deltas[f"total_{side}"].iloc[0] == 0
    ]
    if empty:
        sides = " and the ".join(empty)
        return f"no comparison is possible: the {sides} pair has no {compared}"
    tested = deltas.loc[_tested(deltas)]
    if not (tested["count_reference"] + tested["count_treatment"]).any():
        return f"no comparison is possible: no {compared} of either pair is in a category"
    claimed = claims(deltas)
    if not len(claimed):
        smallest = ", ".join(
            f"smallest {level} {symbol} = {tested.loc[tested['level'] == level, 'q_value'].min():.2f}"
            for level, symbol in (("class", "p"), ("category", "q"))
            if tested.loc[tested["level"] == level, "q_value"].notna().any()
        )
        return f"no class and no category changes beyond chance ({smallest}; {CONTROLLED})"
    parts = [
        f"{word} that change beyond chance: {_list(rows)}"
        for level, word in FAMILIES.items()
        if len(rows := claimed.loc[claimed["level"] == level])
    ]
    return f"{'; '.join(parts)} ({CONTROLLED})"


def headline(deltas: pd.DataFrame, *, reference: str, treatment: str) -> str:
    """`None of 30 categories and none of 7 classes changed beyond what 92 against 113 latents can show.`"""
    n_reference, n_treatment = (
        int(deltas[f"total_{side}"].to_numpy(int).max(initial=0)) for side in ("reference", "treatment")
    )
    if not (n_treatment and n_reference):
        latents = "labelled exclusive latent" + ("" if n_treatment == 1 else "s")
        return (
            f"No comparison is possible: {treatment} has {n_treatment:,} {latents}, "
            f"{reference} has {n_reference:,}."
        )
    (categories, n_categories), (classes, n_classes) = (
        n_claimed(deltas, level) for level in ("category", "class")
    )
    return (
        f"{categories or 'None'} of {n_categories} categories and {classes or 'none'} of {n_classes} "
        f"classes changed beyond what {n_treatment} against {n_reference} latents can show by chance."
    )


def _list(rows: pd.DataFrame) -> str:
    columns = (rows["name"], rows["count_reference"], rows["count_treatment"], rows["relative_change"])
    return ", ".join(
        f"{name} {change_text(int(reference), int(treatment), float(change))}"
        for name, reference, treatment, change in zip(*columns, strict=True)
    )


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


Change = float | Literal["new"] | None
"""A relative change; `new` where only the reference has none of the category; None where neither has it."""


@dataclass(frozen=True)
class Choice:
    """One analysis: the labels of both pairs under one annotator, prompt and exclusiveness threshold."""

    name: str
    reference: Sequence[str]
    treatment: Sequence[str]


def multiverse(choices: Sequence[Choice], taxonomy: Taxonomy) -> dict[str, Any]:
    """Changes [name choice] of all classes, then of the categories that occur; choice 0 is the headline.

    `changes` are relative changes, `new` where only the reference has none, None where neither pair has the
    category or one has no latents. `sign` counts per name the choices with a change whose sign is the
    headline's (`new` is a rise, 0 is no sign).
    """
    members = {group.name: {c.name for c in group.categories} for group in taxonomy.classes}
    seen = {label for choice in choices for label in (*choice.reference, *choice.treatment)}
    members |= {c.name: {c.name} for c in taxonomy.categories if c.name in seen}
    counts = [_counts(choice, members) for choice in choices]
    totals = [(len(choice.reference), len(choice.treatment)) for choice in choices]
    changes: list[list[Change]] = [
        [_change(*found[name], *total) for found, total in zip(counts, totals, strict=True)]
        for name in members
    ]
    return {
        "names": list(members),
        "choices": [choice.name for choice in choices],
        "totals": [list(total) for total in totals],
        "counts": [[list(found[name]) for found in counts] for name in members],
        "changes": changes,
        "sign": [_stability(row) for row in changes],
    }


def _counts(choice: Choice, members: Mapping[str, set[str]]) -> dict[str, tuple[int, int]]:
    return {
        name: (_count(choice.reference, labels), _count(choice.treatment, labels))
        for name, labels in members.items()
    }


def _count(labels: Sequence[str], members: set[str]) -> int:
    return sum(label in members for label in labels)


def _change(reference: int, treatment: int, n_reference: int, n_treatment: int) -> Change:
    if min(n_reference, n_treatment) == 0 or reference + treatment == 0:
        return None
    return relative_change(reference / n_reference, treatment / n_treatment) if reference else "new"


def _stability(changes: Sequence[Change]) -> dict[str, int]:
    """`same` of `of` choices; of = 0 where the headline has no sign."""
    signs = [1.0 if change == "new" else change for change in changes]
    if not signs or not signs[0]:
        return {"same": 0, "of": 0}
    known = [sign for sign in signs if sign is not None]
    return {"same": sum(sign * signs[0] > 0 for sign in known), "of": len(known)}
