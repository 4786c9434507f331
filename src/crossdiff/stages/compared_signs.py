"""Two pairs of difference dictionaries (diff_sae): a delta table for latents that go up, one for down."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from crossdiff.io.tables import read_json, read_table, write_json
from crossdiff.stages.compared_pairs import PairAnswers, pair_answers

if TYPE_CHECKING:
    import pandas as pd

TABLES = {"effect_up": "deltas.csv", "effect_down": "deltas_down.csv"}
"""Role of the latents that are compared -> file of their delta table."""
OF_UP = ("n_labelled", "unanswered", "verdict", "recovered", "planted", "spearman", "groups")
"""Figures of the latents that go up, which stand at the top level too."""


class AskedPairs(Protocol):
    """What is read of the step's inputs."""

    reference: str
    treatment: str
    seed: int
    draws: int

    @property
    def sides(self) -> tuple[tuple[str, ...], tuple[str, ...]]: ...  # noqa: D102


def by_sign(rows: Sequence[Mapping[str, Any]], parents: Mapping[str, Path], members: Iterable[str]) -> bool:
    """Whether the compared latents are those of difference dictionaries.

    The latent tables tell it too (column `sign`): where no latent has a clear sign, nothing is annotated.
    """
    return any(row["role"] in TABLES for row in rows) or any(
        "sign" in read_table(file, kind="latents")
        for name in members
        if (file := parents.get(f"scale_{name}", Path()) / "latents.parquet").is_file()
    )


def compare_signs(
    rows: Sequence[Mapping[str, Any]],
    inputs: AskedPairs,
    parents: Mapping[str, Path],
    draft: Path,
    *,
    deltas: Callable[[PairAnswers, PairAnswers], pd.DataFrame],
) -> dict[str, Any]:
    """Write both delta tables and comparison.json (whose figures are of the latents that go up).

    Nothing is matched across pairs and no limit of latent scaling is varied: both are of exclusive latents.
    """
    pairs, none = (inputs.reference, inputs.treatment), {}
    found, notes = {}, []
    for role, file in TABLES.items():
        sign = role.removeprefix("effect_")
        named = zip(pairs, inputs.sides, strict=True)
        both = [pair_answers(rows, pair, names, none, role=role) for pair, names in named]
        table = deltas(both[0], both[1]).assign(p_seed_null=float("nan"))
        table.to_csv(draft / file, index=False)
        found[sign] = _figures(both, table, inputs, parents.get("organism")) | {"table": file}
        notes += [
            f"{answers.pair} has no labelled latent that goes {sign}: no share and no change can be computed"
            for answers in both
            if answers.side.total == 0
        ]
    if not any(row["role"] in TABLES for row in rows):
        notes.insert(0, "No latent of either pair has a clear sign, so nothing is compared")
    up = found["up"]
    record = {"version": 1, "reference": pairs[0], "treatment": pairs[1], "draws": inputs.draws}
    record |= {
        "compared": "latents of the difference by the sign of their effect",
        "by_sign": found,
        "notes": notes,
        **{name: up.get(name) for name in OF_UP},
    }
    write_json(record, draft / "comparison.json")
    labelled = {f"n_labelled_{s}": up["n_labelled"][getattr(inputs, s)] for s in ("reference", "treatment")}
    rank = (up.get("spearman") or {}).get("rho")
    return {"verdict": up["verdict"], **labelled, "spearman": rank}


def _figures(
    both: Sequence[PairAnswers], table: pd.DataFrame, inputs: AskedPairs, organism: Path | None
) -> dict[str, Any]:
    """Counts, verdict and, of a toy, the recovery of what was planted, for one sign."""
    from crossdiff.statistics.recovery import recovery
    from crossdiff.statistics.verdict import verdict

    found = {
        "n_labelled": {answers.pair: answers.side.total for answers in both},
        "unanswered": {answers.pair: answers.unanswered for answers in both},
        "verdict": verdict(table),
    }
    planted = _planted(organism)
    if planted is None:
        return found
    return found | recovery(planted, both[0].side, both[1].side, draws=inputs.draws, seed=inputs.seed)


def _planted(organism: Path | None) -> list[dict[str, Any]] | None:
    """What was planted in the toy's pairs; None without a toy."""
    if organism is None or not (organism / "planted.json").is_file():
        return None
    return read_json(organism / "planted.json")["categories"]
