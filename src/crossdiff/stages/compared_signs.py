"""Two pairs of difference dictionaries (diff_sae): a delta table for latents that go up, one for down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from crossdiff.io.tables import read_json, write_json
from crossdiff.stages.compared_pairs import (
    PairAnswers,
    counted_notes,
    members_record,
    pair_answers,
    spread_notes,
)

if TYPE_CHECKING:
    import pandas as pd

TABLES = {"effect_up": "deltas.csv", "effect_down": "deltas_down.csv"}
"""Role of the latents that are compared -> file of their delta table."""
OF_UP = ("n_labelled", "unanswered", "recovered", "planted", "spearman", "groups")
"""Figures of the latents that go up, which stand at the top level too."""


class AskedPairs(Protocol):
    """What is read of the step's inputs."""

    reference: str
    treatment: str
    seed: int
    draws: int
    members: dict[str, tuple[str, ...]]
    left_out: tuple[str, ...]

    @property
    def sides(self) -> tuple[tuple[str, ...], tuple[str, ...]]: ...  # noqa: D102


def compare_signs(
    rows: Sequence[Mapping[str, Any]],
    inputs: AskedPairs,
    parents: Mapping[str, Path],
    draft: Path,
    *,
    deltas: Callable[[PairAnswers, PairAnswers], pd.DataFrame],
) -> dict[str, Any]:
    """Write both delta tables and comparison.json (whose figures, but the verdict, are of those that go up).

    Nothing is matched across pairs and no limit of latent scaling is varied: both are of exclusive latents.
    """
    pairs, found = (inputs.reference, inputs.treatment), {}
    for role, file in TABLES.items():
        sign = role.removeprefix("effect_")
        named = zip(pairs, inputs.sides, strict=True)
        both = [pair_answers(rows, pair, names, {}, role=role) for pair, names in named]
        table = deltas(both[0], both[1]).assign(p_seed_null=float("nan"))
        table.to_csv(draft / file, index=False)
        found[sign] = _figures(both, table, inputs, parents.get("organism"), latent=_latent(sign))
        found[sign]["table"] = file
    up = found["up"]
    told = verdict_of(found)
    record = {"version": 1, "reference": pairs[0], "treatment": pairs[1], "draws": inputs.draws}
    record |= {
        "compared": "latents of the difference by the sign of their effect",
        "by_sign": found,
        "notes": _notes(found),
        **{name: up.get(name) for name in OF_UP},
        "verdict": told,
    }
    write_json(record, draft / "comparison.json")
    labelled = {f"n_labelled_{s}": up["n_labelled"][getattr(inputs, s)] for s in ("reference", "treatment")}
    rank = (up.get("spearman") or {}).get("rho")
    return {"verdict": told, **labelled, "spearman": rank}


def verdict_of(by_sign: Mapping[str, Mapping[str, Any]]) -> str:
    """One sentence of both signs, each of which is tested for itself."""
    if not any(n for found in by_sign.values() for n in found["n_labelled"].values()):
        return "no comparison is possible: neither pair has a labelled latent with a clear sign of its effect"
    told = "; ".join(f"latents that go {sign}: {found['verdict']}" for sign, found in by_sign.items())
    return f"{told}; each sign is tested for itself"


def _latent(sign: str) -> str:
    return f"labelled latent that goes {sign}"


def _notes(by_sign: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is missing, and which crosscoders are counted with which spread over their seeds."""
    notes = [
        f"{pair} has no {_latent(sign)}: no share and no change can be computed"
        for sign, found in by_sign.items()
        for pair, n_labelled in found["n_labelled"].items()
        if not n_labelled
    ]
    notes += counted_notes(by_sign["up"])
    for sign, found in by_sign.items():
        spread = spread_notes(found, compared=_latent(sign))
        notes += [f"Latents that go {sign}: {note[0].lower()}{note[1:]}" for note in spread]
    return notes


def _figures(
    both: Sequence[PairAnswers],
    table: pd.DataFrame,
    inputs: AskedPairs,
    organism: Path | None,
    *,
    latent: str,
) -> dict[str, Any]:
    """Counts, verdict, spread over seeds and, of a toy, the recovery of what was planted, for one sign."""
    from crossdiff.statistics.recovery import recovery
    from crossdiff.statistics.verdict import verdict

    found = {
        "n_labelled": {answers.pair: answers.side.total for answers in both},
        "unanswered": {answers.pair: answers.unanswered for answers in both},
        "verdict": verdict(table, compared=latent),
    }
    if inputs.members:
        found |= members_record(both, table, left_out=inputs.left_out)
    planted = _planted(organism)
    if planted is None:
        return found
    return found | recovery(planted, both[0].side, both[1].side, draws=inputs.draws, seed=inputs.seed)


def _planted(organism: Path | None) -> list[dict[str, Any]] | None:
    """What was planted in the toy's pairs; None without a toy."""
    if organism is None or not (organism / "planted.json").is_file():
        return None
    return read_json(organism / "planted.json")["categories"]
