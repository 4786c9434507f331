"""The sources of a report: the parents' artifacts, read once; missing parts are None."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossdiff.annotation.results import ANSWERED
from crossdiff.io.artifacts import MANIFEST, provenance, read_manifest
from crossdiff.io.tables import read_deltas, read_json, read_jsonl, read_table, rows_of, where
from crossdiff.report.delta_rows import DeltaRow, delta_rows
from crossdiff.statistics.themes import latent_energy
from crossdiff.taxonomy.scheme import OTHER, UNINTERPRETABLE

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class PairSource:
    """The artifacts of one pair."""

    name: str
    latents: pd.DataFrame
    training: dict[str, Any]
    diagnostics: dict[str, Any]
    settings: dict[str, Any]
    metrics: pd.DataFrame | None = None
    examples: pd.DataFrame | None = None
    """The documents that annotators are given."""
    top: pd.DataFrame | None = None
    """The corpus' highest documents; None for an older run."""
    selection: dict[str, Any] = field(default_factory=dict)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    annotated: bool = False
    crosscoder: Path | None = None
    base: dict[str, Any] | None = None
    """The harvested base model: path, revision, fingerprint and the like; None where unknown."""
    tuned_name: str | None = None
    base_name: str | None = None

    def energies(self, model: str) -> dict[int, float]:
        """Listed latent -> its energy in `base` or `tuned` (`latent_energy`); NaN without documents."""
        histograms = {int(entry["latent"]): entry.get("histogram") for entry in self.selected()}
        table = self.listed()
        norms = dict(zip(table["latent"], table[f"norm_{model}"], strict=True))
        return {n: latent_energy(drawn, norms.get(n, math.nan)) for n, drawn in histograms.items()}

    def listed(self) -> pd.DataFrame:
        """Rows of the latent table for the latents of `selected`."""
        latents = [int(entry["latent"]) for entry in self.selected()]
        return self.latents[self.latents["latent"].isin(latents)]  # type: ignore[return-value]

    def selected(self) -> list[dict[str, Any]]:
        """Latents with documents, `{"latent", "role"}`; without a selection the exclusive ones."""
        if self.selection.get("latents"):
            return list(self.selection["latents"])
        exclusive = where(self.latents, call="exclusive")
        return [
            {"latent": int(row.latent), "role": f"exclusive_{row.exclusive_to}"} for row in rows_of(exclusive)
        ]

    @property
    def passed(self) -> str:
        """What an exclusive latent has passed: latent scaling, or with selection=norm decoder norms alone."""
        method = (self.settings.get("selection") or {}).get("method", "minder")
        return "the test of decoder norms" if method == "norm" else "latent scaling"

    def exclusive(self, model: str) -> pd.DataFrame:
        """Rows of the latent table that `passed` for `model` (`base` or `tuned`)."""
        return where(self.latents, call="exclusive", exclusive_to=model)

    def n_labelled(self) -> int:
        """Answered tuned-exclusive latents, `uninterpretable` included, the total of the shares."""
        return sum(count for state, count in self.states().items() if state in ANSWERED)

    def n_in_categories(self) -> int:
        """Latents of `n_labelled` with a category of the taxonomy, not `other` or `uninterpretable`."""
        return sum(
            row["role"] == "exclusive_tuned"
            and row["state"] in ANSWERED
            and row["category"] not in (OTHER, UNINTERPRETABLE)
            for row in self.annotations
        )

    def states(self) -> dict[str, int]:
        """Count of tuned-exclusive annotation rows per state."""
        counts: dict[str, int] = {}
        for row in self.annotations:
            if row["role"] == "exclusive_tuned":
                counts[row["state"]] = counts.get(row["state"], 0) + 1
        return counts


@dataclass(frozen=True)
class ComparisonSource:
    """The delta table and the facts of a comparison."""

    reference: str
    treatment: str
    deltas: pd.DataFrame
    facts: dict[str, Any]
    rates: dict[str, Any] | None = None

    def rows(self) -> list[DeltaRow]:
        """The delta table's rows, in its order."""
        return delta_rows(self.deltas)


@dataclass(frozen=True)
class Sources:
    """All inputs of a report page."""

    pairs: dict[str, PairSource]
    comparison: ComparisonSource | None
    annotate: dict[str, Any]
    provenance: list[dict[str, Any]]
    human_check: dict[str, Any] | None = None
    pending: tuple[str, str] | None = None
    """Reference and treatment of an unfinished comparison."""
    members: dict[str, tuple[PairSource, ...]] = field(default_factory=dict)
    """Pair -> all its crosscoders, the shown one first; empty where all pairs have one."""

    def crosscoders(self, pair: str) -> tuple[PairSource, ...]:
        """The crosscoders of a shown pair, the shown one first."""
        return self.members.get(pair, (self.pairs[pair],))


def read_sources(
    parents: Mapping[str, Path],
    *,
    pairs: Sequence[str],
    reference: str | None,
    treatment: str | None,
    members: Mapping[str, Sequence[str]] | None = None,
) -> Sources:
    """Read the artifacts behind a report; `annotate`, `compare` and `organism` may be absent.

    `members` names the crosscoders of each pair where it has several; unfinished ones are left out.
    """
    rows = read_annotations(parents)
    comparison = read_comparison(parents, reference, treatment)
    asked = None if reference is None or treatment is None else (reference, treatment)
    pair_sources = {name: read_pair(name, parents, rows) for name in pairs}
    return Sources(
        pairs=pair_sources,
        comparison=comparison,
        annotate=_json(parents.get("annotate"), "annotate.json") or {},
        provenance=provenance(parents),
        pending=asked if comparison is None else None,
        members={
            name: (pair_sources[name], *_other_members(name, (members or {}).get(name, ()), parents, rows))
            for name in pairs
            if name in (members or {})
        },
    )


def _other_members(
    shown: str, names: Sequence[str], parents: Mapping[str, Path], rows: list[dict[str, Any]] | None
) -> list[PairSource]:
    finished = [name for name in names if {f"train_{name}", f"scale_{name}"} <= parents.keys()]
    return [read_pair(name, parents, rows) for name in finished if name != shown]


def read_pair(name: str, parents: Mapping[str, Path], rows: list[dict[str, Any]] | None) -> PairSource:
    """One pair's artifacts; `rows` are the annotations of all pairs, None before annotation."""
    train, scale = parents[f"train_{name}"], parents[f"scale_{name}"]
    documents = parents.get(f"documents_{name}")
    manifest = read_manifest(scale) if (scale / MANIFEST).is_file() else {}
    return PairSource(
        name=name,
        latents=read_table(scale / "latents.parquet", kind="latents"),
        training=_json(train, "training.json") or {},
        diagnostics=_json(scale, "diagnostics.json") or {},
        settings=manifest.get("inputs", {}),
        metrics=_metrics(train / "metrics.csv"),
        examples=_documents(documents, "examples"),
        top=_documents(documents, "top_documents"),
        selection=_json(documents, "selection.json") or {},
        annotations=[row for row in rows or [] if row["pair"] == name],
        annotated=rows is not None,
        crosscoder=train / "crosscoder",
        base=_base_model(train),
        tuned_name=_model(train, "harvest_tuned").get("label"),
        base_name=_model(train, "harvest_base").get("label"),
    )


def _model(train: Path, role: str) -> dict[str, Any]:
    """The manifest of one model's harvest; empty where it is not in the store."""
    parents = read_manifest(train).get("parents", {}) if (train / MANIFEST).is_file() else {}
    harvest = train.parent.parent / "harvest" / parents.get(role, "")
    return read_manifest(harvest) if (harvest / MANIFEST).is_file() else {}


def _base_model(train: Path) -> dict[str, Any] | None:
    manifest = _model(train, "harvest_base")
    if not manifest:
        return None
    inputs, weights = manifest.get("inputs", {}), ("path", "revision", "adapter", "towards", "distance")
    model = {name: (inputs.get("model") or {}).get(name) for name in weights}
    return model | {"fingerprint": inputs.get("fingerprint")}


def _documents(folder: Path | None, kind: str) -> pd.DataFrame | None:
    if folder is None or not (folder / f"{kind}.parquet").is_file():
        return None
    return read_table(folder / f"{kind}.parquet", kind=kind)


def read_annotations(parents: Mapping[str, Path]) -> list[dict[str, Any]] | None:
    """The annotations of all pairs; None before annotation."""
    if "annotate" not in parents:
        return None
    return read_jsonl(parents["annotate"] / "annotations.jsonl")


def read_comparison(
    parents: Mapping[str, Path], reference: str | None, treatment: str | None
) -> ComparisonSource | None:
    """The comparison; None where there is none or it is not finished."""
    if "compare" not in parents or reference is None or treatment is None:
        return None
    folder = parents["compare"]
    return ComparisonSource(
        reference=reference,
        treatment=treatment,
        deltas=read_deltas(folder / "deltas.csv"),
        facts=_json(folder, "comparison.json") or {},
        rates=_json(parents.get("organism"), "rates.json"),
    )


def _metrics(path: Path) -> pd.DataFrame | None:
    import pandas as pd

    if not path.is_file() or path.stat().st_size == 0:
        return None
    return pd.read_csv(path)


def _json(folder: Path | None, name: str) -> dict[str, Any] | None:
    if folder is None or not (folder / name).is_file():
        return None
    return read_json(folder / name)
