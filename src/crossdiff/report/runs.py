"""Reading finished runs: results folders for `action=compare`, products for studies."""

from __future__ import annotations

import glob
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossdiff.annotation.results import ANSWERED
from crossdiff.io.tables import read_deltas, read_json, read_jsonl, read_table
from crossdiff.report.delta_rows import DeltaRow, delta_rows
from crossdiff.report.summary import VERSION

if TYPE_CHECKING:
    import pandas as pd


Setting = str | int | float | bool | None


@dataclass(frozen=True)
class Run:
    """One results folder: settings, figures of each pair, and the deltas of a comparison."""

    name: str
    folder: Path
    settings: dict[str, Setting]
    pairs: dict[str, dict[str, Any]]
    compared: tuple[str, str] | None = None
    """Names of the reference and the treatment."""
    deltas: tuple[DeltaRow, ...] = ()
    steps: tuple[tuple[str, str], ...] = ()
    """Name and key of every step."""

    def delta(self, name: str, level: str) -> DeltaRow | None:
        """The row of a class or category; None where the run has none."""
        return next((row for row in self.deltas if (row.name, row.level) == (name, level)), None)


def read_runs(pattern: str) -> list[Run]:
    """The results folders that the glob matches, by the settings in which they differ."""
    matches = sorted(Path(path) for path in glob.glob(str(Path(pattern).expanduser()), recursive=True))
    folders = [path for path in matches if (path / "summary.json").is_file()]
    if len(folders) < 2:
        given = f"only {folders[0]}" if folders else f"none among {len(matches)} matches"
        raise ValueError(
            f"compare.runs={pattern} gives {given} with a summary.json, and a comparison needs two; "
            "give a glob of results folders in quotes: compare.runs='results/toy_seed*'"
        )
    names = _names(folders)
    runs = [_read(folder, name) for folder, name in zip(folders, names, strict=True)]
    varying = varying_settings(runs)
    return sorted(runs, key=lambda run: [sortable(run.settings.get(name)) for name in varying])


def varying_settings(runs: Sequence[Run]) -> list[str]:
    """Names of the settings that are not the same in all runs."""
    names = dict.fromkeys(name for run in runs for name in run.settings)
    return [name for name in names if len({repr(run.settings.get(name)) for run in runs}) > 1]


def sortable(value: Setting) -> tuple[int, float, str]:
    """Sort key: missing values, then numbers by size, then texts."""
    match value:
        case None:
            return (0, 0.0, "")
        case bool() | str():
            return (2, 0.0, str(value))
    return (1, float(value), "")


def _names(folders: Sequence[Path]) -> list[str]:
    """Folder names, with as many parents as make them unique."""
    for depth in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = ["/".join(folder.parts[-depth:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def _read(folder: Path, name: str) -> Run:
    path = folder / "summary.json"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        version = summary["version"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is no summary of a run ({error}); run that command again, or leave the folder out"
        ) from None
    if version != VERSION:
        raise ValueError(
            f"{path} has version {version}, this crossdiff reads version {VERSION}; run that command again"
        )
    facts = summary.get("comparison")
    compared = None if facts is None else (str(facts["reference"]), str(facts["treatment"]))
    return Run(
        name=name,
        folder=folder,
        settings=summary.get("settings") or {},
        pairs=summary.get("pairs") or {},
        compared=compared,
        deltas=() if compared is None else _deltas(folder / "deltas.csv"),
        steps=tuple((step["name"], step["key"]) for step in summary.get("steps") or []),
    )


def _deltas(path: Path) -> tuple[DeltaRow, ...]:
    if not path.is_file():
        raise ValueError(f"{path} is missing though the run compared two pairs; run that command again")
    return tuple(delta_rows(read_deltas(path)))


ROLES = {"tuned": "exclusive_tuned", "base": "exclusive_base"}


@dataclass(frozen=True)
class RunProducts:
    """The products of one run of a study; `name` is the run's name in the study."""

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
