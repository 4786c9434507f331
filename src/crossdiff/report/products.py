"""A finished report artifact as other steps read it: summary, latent tables, annotations, deltas."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossdiff.annotation.results import ANSWERED
from crossdiff.io.tables import read_json, read_jsonl, read_table
from crossdiff.report.frames import read_deltas

if TYPE_CHECKING:
    import pandas as pd

ROLES = {"tuned": "exclusive_tuned", "base": "exclusive_base"}


@dataclass(frozen=True)
class RunProducts:
    """The products of one run of a study; `name` is the run's name inside the study."""

    name: str
    folder: Path

    @cached_property
    def summary(self) -> dict[str, Any]:
        """summary.json: figures per pair, and the comparison or None."""
        return read_json(self.folder / "summary.json")

    @property
    def pairs(self) -> tuple[str, ...]:
        """Names of the run's pairs, the reference first."""
        return tuple(self.summary["pairs"])

    @property
    def comparison(self) -> dict[str, Any] | None:
        """The comparison's facts; None for a run of one pair."""
        return self.summary["comparison"]

    def figures(self, pair: str) -> dict[str, Any]:
        """FVE, L0, counts of one pair."""
        return self.summary["pairs"][pair]

    def latents(self, pair: str) -> pd.DataFrame:
        """The latent table of a pair."""
        return read_table(self.folder / f"latents.{pair}.parquet", kind="latents")

    def annotations(self, pair: str) -> list[dict[str, Any]]:
        """One row per annotated latent of a pair."""
        path = self.folder / f"annotations.{pair}.jsonl"
        if not path.is_file():
            return []
        return read_jsonl(path)

    def labels(self, pair: str, *, model: str = "tuned") -> dict[int, str]:
        """Latent -> category, for the answered exclusive latents of one model of the pair."""
        return {
            int(row["latent"]): row["category"]
            for row in self.annotations(pair)
            if row["role"] == ROLES[model] and row["state"] in ANSWERED
        }

    def deltas(self) -> pd.DataFrame:
        """The delta table of a run with a comparison."""
        if self.comparison is None:
            raise ValueError(
                f"run {self.name!r} compares no two pairs, so it has no deltas; give comparison=... "
                "(two pairs against a shared base) instead of model_pair=..."
            )
        return read_deltas(self.folder / "deltas.csv")
