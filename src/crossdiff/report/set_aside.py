"""What was left out on the way to the figures, with counts."""

from __future__ import annotations

from collections import Counter
from typing import Any

from crossdiff.annotation.results import ANSWERED
from crossdiff.report.figures.stops import clause_text
from crossdiff.report.frames import where
from crossdiff.report.sources import PairSource

Row = tuple[str, str, int]
"""Step, what, count."""


def set_aside(pair: PairSource) -> list[Row]:
    """Every count that was left out on the way, as (step, what, count)."""
    latents, selection = pair.latents, pair.selection
    rows = [
        ("train", "latents never active (dead)", len(where(latents, kind="dead"))),
        ("scale", "latents whose call is undecided", len(where(latents, call="undecided"))),
    ]
    for side, clauses in rejected_by_side(pair).items():
        rows += [
            ("scale", f"{side} side, stopped first by: {clause_text(clause)}", each)
            for clause, each in clauses.items()
        ]
    rows += [
        ("documents", f"latents not taken, {name}", each)
        for name, each in counts_in(selection.get("not_taken"))
    ]
    if "near_duplicates_dropped" in selection:
        rows.append(
            ("documents", "near-duplicate documents dropped", int(selection["near_duplicates_dropped"]))
        )
    return [*rows, *_without_answer(pair)]


def _without_answer(pair: PairSource) -> list[Row]:
    """Exclusive latents without a label by state, and labelled ones with votes that failed."""
    states, failed, stand_ins = pair.states(), Counter[str](), Counter[str]()
    for row in pair.annotations:
        if row["role"].startswith("exclusive") and row["state"] in ANSWERED:
            failed.update(list(row.get("failed_votes") or {}))
            stand_ins.update([row["annotator"]] if "refused by" in row["annotator"] else [])
    rows = [
        ("annotate", f"tuned-exclusive latents: {state.replace('_', ' ')}", each)
        for state, each in sorted(states.items())
        if state != "ok"
    ]
    rows += [
        ("annotate", f"labelled exclusive latents of which a vote was {state.replace('_', ' ')}", each)
        for state, each in sorted(failed.items())
    ]
    rows += [
        ("annotate", f"exclusive latents labelled by {name}", each)
        for name, each in sorted(stand_ins.items())
    ]
    if not pair.annotated:
        rows.append(
            ("annotate", "tuned-exclusive latents without annotations yet", len(pair.exclusive("tuned")))
        )
    return rows


def rejected_by_side(pair: PairSource) -> dict[str, dict[str, int]]:
    """Clause -> latents it stopped first, per side; an older flat table counts as the tuned side."""
    rejected = pair.diagnostics.get("rejected") or {}
    if any(not isinstance(value, dict) for value in rejected.values()):
        rejected = {"tuned": rejected}
    return {
        side: {clause: each for clause, each in clauses.items() if clause != "exclusive"}
        for side, clauses in rejected.items()
    }


def counts_in(value: Any) -> list[tuple[str, int]]:
    """Named counts of a dictionary, or one unnamed count."""
    match value:
        case dict():
            return [
                (str(name).replace("_", " "), int(each)) for name, each in value.items() if each is not None
            ]
        case int():
            return [("all", value)]
    return []
