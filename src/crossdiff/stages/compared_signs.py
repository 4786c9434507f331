"""Two pairs of difference dictionaries (diff_sae): a delta table for latents that go up, one for down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossdiff.io.tables import read_json, write_json
from crossdiff.stages.compared_pairs import PairAnswers, pair_answers

if TYPE_CHECKING:
    import pandas as pd

TABLES = {"effect_up": "deltas.csv", "effect_down": "deltas_down.csv"}
"""Role of the latents that are compared -> file of their delta table."""
Sides = tuple[tuple[str, Sequence[str]], tuple[str, Sequence[str]]]
"""Reference and treatment: the pair, and the names of its dictionaries."""


def by_sign(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether these annotations are of the latents of difference dictionaries."""
    return any(row["role"] in TABLES for row in rows)


def compare_signs(
    rows: Sequence[Mapping[str, Any]],
    sides: Sides,
    parents: Mapping[str, Path],
    draft: Path,
    *,
    deltas: Callable[[PairAnswers, PairAnswers], pd.DataFrame],
    draws: int,
    seed: int,
) -> dict[str, Any]:
    """Write both delta tables and comparison.json (whose figures are of the latents that go up).

    Nothing is matched across pairs and no limit of latent scaling is varied: both are of exclusive latents.
    """
    from crossdiff.statistics.recovery import recovery
    from crossdiff.statistics.verdict import verdict

    none: dict[str, Path] = {}
    record: dict[str, Any] = {
        "version": 1,
        "reference": sides[0][0],
        "treatment": sides[1][0],
        "draws": draws,
        "compared": "latents of the difference by the sign of their effect",
        "by_sign": {},
        "notes": [],
    }
    planted = _planted(parents.get("organism"))
    for role, file in TABLES.items():
        both = [pair_answers(rows, pair, names, none, role=role) for pair, names in sides]
        table = deltas(both[0], both[1])
        table["p_seed_null"] = float("nan")
        table.to_csv(draft / file, index=False)
        found: dict[str, Any] = {
            "table": file,
            "n_labelled": {answers.pair: answers.side.total for answers in both},
            "unanswered": {answers.pair: answers.unanswered for answers in both},
            "verdict": verdict(table),
        }
        if planted is not None:
            found |= recovery(planted, both[0].side, both[1].side, draws=draws, seed=seed)
        record["by_sign"][role.removeprefix("effect_")] = found
        record["notes"] += [
            f"{answers.pair} has no labelled latent that goes {role.removeprefix('effect_')}: no share and "
            "no change can be computed"
            for answers in both
            if answers.side.total == 0
        ]
    up = record["by_sign"]["up"]
    names = ("n_labelled", "unanswered", "verdict", "recovered", "planted", "spearman", "groups")
    write_json({**record, **{name: up.get(name) for name in names}}, draft / "comparison.json")
    return {
        "verdict": up["verdict"],
        "n_labelled_reference": up["n_labelled"][sides[0][0]],
        "n_labelled_treatment": up["n_labelled"][sides[1][0]],
        "spearman": (up.get("spearman") or {}).get("rho"),
    }


def _planted(organism: Path | None) -> list[dict[str, Any]] | None:
    """What was planted in the toy's pairs; None without a toy."""
    if organism is None or not (organism / "planted.json").is_file():
        return None
    return read_json(organism / "planted.json")["categories"]
