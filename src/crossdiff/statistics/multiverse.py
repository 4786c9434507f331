"""Every defensible analysis beside the one that is headlined: does a change keep its sign?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from crossdiff.statistics.deltas import relative_change
from crossdiff.taxonomy.scheme import Taxonomy

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
    category or one has no latents. `sign` says per name in how many of the choices with a change the sign is
    the headline's (`new` is a rise, 0 is no sign).
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
        name: (_count(choice.reference, own), _count(choice.treatment, own)) for name, own in members.items()
    }


def _count(labels: Sequence[str], members: set[str]) -> int:
    return sum(label in members for label in labels)


def _change(reference: int, treatment: int, n_reference: int, n_treatment: int) -> Change:
    if min(n_reference, n_treatment) == 0 or reference + treatment == 0:
        return None
    return relative_change(reference / n_reference, treatment / n_treatment) if reference else "new"


def _stability(changes: Sequence[Change]) -> dict[str, int]:
    """`same` of `of` choices; of = 0 where the headline itself has no sign."""
    signs = [1.0 if change == "new" else change for change in changes]
    if not signs or not signs[0]:
        return {"same": 0, "of": 0}
    known = [sign for sign in signs if sign is not None]
    return {"same": sum(sign * signs[0] > 0 for sign in known), "of": len(known)}
