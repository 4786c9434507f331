"""The pairs of a comparison: labels of every crosscoder, unanswered latents, spread over seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossdiff.annotation.results import ANSWERED
from crossdiff.io.tables import read_jsonl, read_table
from crossdiff.stages.merged_concepts import MIN_COSINE, merged_labels
from crossdiff.statistics.deltas import Labels
from crossdiff.statistics.verdict import Choice
from crossdiff.taxonomy.scheme import RESERVED

if TYPE_CHECKING:
    import pandas as pd

ROLE = "exclusive_tuned"
"""Only the tuned-exclusive latents of both pairs are compared."""
THRESHOLDS: dict[str, tuple[float, float] | None] = {
    "nu as selected": None,
    "nu 0.15/0.375": (0.15, 0.375),
    "nu 0.1/0.25": (0.1, 0.25),
}
"""Bounds of |nu_error| and |nu_reconstruction|: as selected, three quarters and half of Minder's."""


MIN_CONFIDENCE = 3
"""Least confidence (1 to 5) in the choice of confident answers; answers without one count too."""


@dataclass(frozen=True)
class PairAnswers:
    """One pair's answered latents, and its unanswered ones by state.

    `side` and the counts are over all crosscoders of the pair; `runs` has the labels of each by name.
    """

    pair: str
    side: Labels
    n_exclusive: int
    unanswered: dict[str, int]
    runs: dict[str, Labels]


def pair_answers(
    rows: Sequence[Mapping[str, Any]],
    pair: str,
    members: Sequence[str],
    parents: Mapping[str, Path],
    *,
    role: str = ROLE,
) -> PairAnswers:
    """The exclusive latents of a pair's crosscoders (or those of another `role`).

    Answered ones come as labels, others are counted by state.
    """
    exclusive = {
        name: [row for row in rows if row["pair"] == name and row["role"] == role] for name in members
    }
    runs = {
        name: Labels([row["category"] for row in latents if row["state"] in ANSWERED])
        for name, latents in exclusive.items()
    }
    unanswered = Counter(
        row["state"] for latents in exclusive.values() for row in latents if row["state"] not in ANSWERED
    )
    n_exclusive = sum(
        _n_exclusive(parents.get(f"scale_{name}"), default=len(rows)) for name, rows in exclusive.items()
    )
    side = Labels([label for run in runs.values() for label in run.labels])
    return PairAnswers(pair, side, n_exclusive, dict(sorted(unanswered.items())), runs)


def _n_exclusive(scale: Path | None, *, default: int) -> int:
    """Number of tuned-exclusive latents in the latent table; `default` without a table."""
    if scale is None or not (scale / "latents.parquet").is_file():
        return default
    table = read_table(scale / "latents.parquet", kind="latents")
    return table["exclusive_to"].tolist().count("tuned")


def typical_spread(deltas: pd.DataFrame) -> tuple[float, float] | None:
    """Median phi and degrees of freedom of the categories; None where no spread over seeds is known."""
    if "phi" not in deltas:
        return None
    tested = deltas[(deltas.level == "category") & ~deltas.name.isin(RESERVED)]
    if tested.phi.isna().all():
        return None
    return float(tested.phi.median()), float(tested.df.median())


def members_record(
    both: Sequence[PairAnswers], deltas: pd.DataFrame, *, left_out: Sequence[str]
) -> dict[str, Any]:
    """Labelled latents of every crosscoder, and the spread of counts over them."""
    counts = {answers.pair: {name: run.total for name, run in answers.runs.items()} for answers in both}
    spread = typical_spread(deltas)
    return {
        "members": counts,
        "left_out": list(left_out),
        "spread": str(deltas["spread"].iloc[0]),
        "phi": None if spread is None else spread[0],
        "df": None if spread is None else spread[1],
    }


def member_notes(comparison: Mapping[str, Any]) -> list[str]:
    """Sentences on the crosscoders counted, those left out, and the spread over seeds."""
    return [*counted_notes(comparison), *spread_notes(comparison)]


def counted_notes(comparison: Mapping[str, Any]) -> list[str]:
    """Sentences on the crosscoders counted and those left out; empty with one crosscoder per pair."""
    if "members" not in comparison:
        return []
    sizes = ", ".join(f"{len(runs)} of {pair}" for pair, runs in comparison["members"].items())
    notes = [f"Counts are over several crosscoders that differ in their seed alone: {sizes}"]
    if comparison["left_out"]:
        notes.append(f"Left out: {', '.join(comparison['left_out'])}; the comparison uses the others")
    return notes


def spread_notes(comparison: Mapping[str, Any], *, compared: str = "labelled exclusive latent") -> list[str]:
    """Sentences on crosscoders without a latent that is `compared`, and on the spread over seeds."""
    if "members" not in comparison:
        return []
    counts, notes = comparison["members"], []
    empty = [name for runs in counts.values() for name, total in runs.items() if not total]
    if empty:
        notes.append(f"Without a {compared}, so not counted: {', '.join(empty)}")
    match comparison["spread"]:
        case "not measured" if not all(sum(runs.values()) for runs in counts.values()):
            notes.append(f"The spread over seeds was not measured, because a pair has no {compared}")
        case "not measured":
            notes.append(
                "The spread over seeds was not measured: intervals are those of counting alone; "
                "raise comparison.n_seeds"
            )
        case "one side":
            notes.append("The spread over seeds was measured on one pair only and serves both")
        case _ if comparison["phi"] is None:
            notes.append("Every label is `other`, so no category has a spread over seeds")
        case _:
            notes.append(
                f"Counts vary {comparison['phi']:.2f} times as much over seeds as independent latents would "
                f"(median of the categories, {comparison['df']:.0f} degrees of freedom)"
            )
    return notes


def refusal_notes(bounds: Sequence[Mapping[str, Any]]) -> list[str]:
    """What refused latents could do to the change of every class."""
    return [
        f"{row['name']}: the refused latents leave its change anywhere from "
        f"{row['low_text']} (all of the reference's are of it, none of the treatment's) to "
        f"{row['high_text']} (the other way round)"
        for row in bounds
        if row["level"] == "class"
    ]


def choices(
    sides: Sequence[Sequence[str]], parents: Mapping[str, Path], rows: Sequence[Mapping[str, Any]]
) -> list[Choice]:
    """Annotators and prompts x thresholds of latent scaling; the headline (as selected) comes first.

    `sides` are the crosscoders of the reference and of the treatment; several add the choices of
    `_of_several`.
    """
    path = parents["annotate"] / "variants.jsonl"
    labelled: dict[str, Sequence[Mapping[str, Any]]] = {"as reported": rows}
    for row in read_jsonl(path) if path.is_file() else ():
        labelled.setdefault(row["variant"], []).append(row)  # type: ignore[attr-defined]
    kept = {name: latents_below(parents.get(f"scale_{name}")) for side in sides for name in side}
    choices = [
        Choice(f"{name}, {threshold}", *(_labels(answers, side, kept, threshold) for side in sides))
        for threshold in THRESHOLDS
        if all(threshold in latents or THRESHOLDS[threshold] is None for latents in kept.values())
        for name, answers in labelled.items()
    ]
    return choices + (_of_several(sides, parents, rows) if any(len(side) > 1 for side in sides) else [])


def _of_several(
    sides: Sequence[Sequence[str]], parents: Mapping[str, Path], rows: Sequence[Mapping[str, Any]]
) -> list[Choice]:
    """With several crosscoders: confident answers alone, and concepts instead of latents."""
    sure = [row for row in rows if (row.get("confidence") or MIN_CONFIDENCE) >= MIN_CONFIDENCE]
    choices = [
        Choice(
            f"as reported, confidence {MIN_CONFIDENCE} or more",
            *(_labels(sure, side, {}, "") for side in sides),
        )
    ]
    if all(f"train_{name}" in parents for side in sides for name in side):
        name = f"as reported, concepts (cosine {MIN_COSINE:g} or more) counted once"
        choices.append(Choice(name, *(_concept_labels(rows, side, parents) for side in sides)))
    return choices


def _concept_labels(
    rows: Sequence[Mapping[str, Any]], members: Sequence[str], parents: Mapping[str, Path]
) -> list[str]:
    """One label per concept of every crosscoder."""
    return [
        label
        for name in members
        for label in merged_labels(_answered(rows, name), parents[f"train_{name}"] / "crosscoder")
    ]


def _answered(rows: Sequence[Mapping[str, Any]], member: str) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["pair"] == member and row["role"] == ROLE and row["state"] in ANSWERED]


def _labels(
    rows: Sequence[Mapping[str, Any]],
    members: Sequence[str],
    kept: Mapping[str, Mapping[str, set[int]]],
    threshold: str,
) -> list[str]:
    """Labels of all members' latents that pass the threshold; of all latents for the headline's."""
    latents = {name: kept.get(name, {}).get(threshold) for name in members}
    return [
        row["category"]
        for name in members
        for row in _answered(rows, name)
        if (passed := latents[name]) is None or row["latent"] in passed
    ]


def latents_below(scale: Path | None) -> dict[str, set[int]]:
    """Stricter threshold -> the latents with |nu_error| and |nu_reconstruction| below it."""
    if scale is None or not (scale / "latents.parquet").is_file():
        return {}
    table = read_table(scale / "latents.parquet", kind="latents")
    return {
        name: set(
            table["latent"][table.nu_error.abs().lt(most[0]) & table.nu_reconstruction.abs().lt(most[1])]
        )
        for name, most in THRESHOLDS.items()
        if most is not None
    }
