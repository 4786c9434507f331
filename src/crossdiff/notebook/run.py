"""A finished run as Python objects: latents with labels, deltas, documents, crosscoders, figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from crossdiff.core.codes import check_latent
from crossdiff.notebook.finished_steps import FinishedSteps
from crossdiff.notebook.marked import Examples
from crossdiff.report.sources import (
    ComparisonSource,
    PairSource,
    read_annotations,
    read_comparison,
    read_pair,
)

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from crossdiff.core.crosscoder import Crosscoder
    from crossdiff.notebook.open_model import OpenModel
    from crossdiff.notebook.pair import OpenPair

LABELS = ("role", "state", "category", "label", "description")
"""Columns of an annotation that join the latent table."""


def open_run(results: str | Path, *, store: str | Path | None = None) -> Run:
    """The finished run whose report lies in the folder `results`.

    `store` is where its steps lie; summary.json names it, so it is needed only where the store was moved.
    ValueError where the folder is no run's or the steps are missing.
    """
    folder = Path(results).expanduser()
    return Run(FinishedSteps.of_results(folder, None if store is None else Path(store).expanduser()), folder)


@dataclass(frozen=True)
class Run:
    """What one command left in the store, read when it is asked for."""

    steps: FinishedSteps
    results: Path
    keeps: Any = None
    """What must not be deleted before the run, such as a temporary store."""

    def __repr__(self) -> str:
        return f"Run({str(self.results)!r}, pairs={self.pairs})"

    @property
    def pairs(self) -> list[str]:
        """Names of the pairs; each crosscoder of an ensemble is one (`<pair>_seed<k>`)."""
        return self.steps.pairs

    @property
    def settings(self) -> dict[str, Any]:
        """Every setting that decided the results, by its name on the command line."""
        return dict(self.steps.summary.get("settings", {}))

    @property
    def deltas(self) -> pd.DataFrame:
        """The delta table: treatment against reference, one row per class and category (docs/glossary.md)."""
        comparison = self.comparison
        if comparison is None:
            raise ValueError(
                f"{self.results} compares no two pairs (it has {_listed(self.pairs)}), so it has no "
                "deltas; open a run made with comparison=..."
            )
        return comparison.deltas.copy()

    def latents(self, pair: str) -> pd.DataFrame:
        """The latent table of a pair, one row per latent (docs/latent_scaling.md), with labels joined.

        `role`, `state`, `category`, `label` and `description` are missing for latents that nobody labelled.
        """
        import pandas as pd

        source, rows = self.source(pair), self.annotations(pair)
        joined = {name: [rows.get(int(j), {}).get(name) for j in source.latents["latent"]] for name in LABELS}
        return source.latents.assign(
            **{name: pd.Series(values, dtype="object") for name, values in joined.items()}
        )

    def examples(self, pair: str, latent: int, *, n: int = 10) -> Examples:
        """Documents of a latent with its active tokens marked: the corpus' highest and the annotator's.

        Documents were collected for the latents of interest and for controls; another latent is a ValueError.
        """
        source = self.source(pair)
        check_latent(latent, len(source.latents), pair)
        if source.top is None and source.examples is None:
            raise ValueError(f"the documents of {pair} are not finished; run the same command again")
        documents = self._documents_of(source)
        if latent not in documents:
            known = sorted(documents)
            raise ValueError(
                f"latent {latent} of {pair} has no documents: they were collected for {len(known)} "
                f"latents of interest and controls alone ({_listed(known)}); run.open_pair reads other texts"
            )
        windows = documents[latent].drop_duplicates("document_id")
        windows = windows.sort_values("peak_code", ascending=False, kind="stable").reset_index(drop=True)
        title = self.annotations(pair).get(latent, {}).get("category")
        return Examples(pair, latent, windows, title or "", n)

    def crosscoder(self, pair: str) -> Crosscoder:
        """The trained crosscoder of a pair, on the CPU."""
        from crossdiff.core.crosscoder import Crosscoder

        self._check_pair(pair)
        return Crosscoder.load(self.steps.roles[f"train_{pair}"] / "crosscoder")

    def figure(self, name: str, pair: str | None = None) -> go.Figure:
        """A figure of the report: `changes`, `multiverse`, or one of a pair (`nu`, `delta_norm`, ...).

        `pair` may be left out where the run has one. An unknown name is a ValueError that lists all.
        """
        from crossdiff.report.export import OF_COMPARISON, comparison_figure, known_name, pair_figure

        name = known_name(name)
        if name in OF_COMPARISON:
            return comparison_figure(name, self.comparison, whose=str(self.results))
        if pair is None and len(self.pairs) != 1:
            raise ValueError(f"figure {name!r} shows one pair; give pair= one of {', '.join(self.pairs)}")
        source = self.source(self.pairs[0] if pair is None else pair)
        _refuse_differences([source], "no figure of a crosscoder; its own are on the page of its report")
        return pair_figure(name, source)

    def relabel(
        self,
        labels: Callable[[Examples], str | None] | Mapping[Any, Any] | pd.DataFrame,
        *,
        draws: int | None = None,
        seed: int | None = None,
    ) -> pd.DataFrame:
        """The delta table with labels of one's own for the tuned-exclusive latents that have documents.

        `labels` is a function of a latent's `Examples`, a mapping {(pair, latent): label} or {pair: {latent:
        label}}, or a table with columns pair, latent and label (or category). A latent without a label (None)
        is left out of counts and totals; `deltas.attrs["n_unlabelled"]` counts these by pair. `draws` and
        `seed` are the run's unless given.
        """
        from crossdiff.notebook.relabel import given_labels, relabelled

        if (compared := self.compared) is None:
            raise ValueError(
                f"{self.results} compares no two pairs, so labels of yours give no deltas; open a run made "
                "with comparison=..."
            )
        members = compared.get("members") or {}
        sides = [list(members.get(pair, [pair])) for pair in (compared["reference"], compared["treatment"])]
        sources = [self.source(name) for side in sides for name in side]
        _refuse_differences(sources, "no exclusive latents to label again; run.latents has its labels")
        asked = {source.name: self.selected(source.name) for source in sources}
        given = given_labels(labels, asked, self.examples)
        recorded = self.steps.inputs("compare") if "compare" in self.steps.roles else {}
        draws = int(recorded.get("draws", 5000)) if draws is None else draws
        seed = int(recorded.get("seed", 0)) if seed is None else seed
        return relabelled(given, sides, asked, several=bool(members), draws=draws, seed=seed)

    def open_pair(self, pair: str, *, device: str = "auto") -> OpenPair:
        """The pair's two models at the run's layer, its crosscoder and labels, for texts of one's own."""
        from crossdiff.notebook.finished_steps import open_pair_of

        return open_pair_of(self.steps, pair, self._models, labels=self.latents(pair), device=device)

    def annotations(self, pair: str) -> dict[int, dict[str, Any]]:
        """Latent -> its line of `annotations.jsonl`; where it also served as a control, the exclusive one."""
        rows = sorted(self.source(pair).annotations, key=lambda row: row["role"].startswith("exclusive"))
        return {int(row["latent"]): row for row in rows}

    def source(self, pair: str) -> PairSource:
        """Everything that the report knows of a pair."""
        self._check_pair(pair)
        if pair not in self._sources:
            self._sources[pair] = read_pair(pair, self.steps.roles, self._annotations)
        return self._sources[pair]

    @cached_property
    def comparison(self) -> ComparisonSource | None:
        """The delta table and its facts; None for a run that compares nothing."""
        asked = self.compared or {}
        return read_comparison(self.steps.roles, asked.get("reference"), asked.get("treatment"))

    @cached_property
    def _models(self) -> WeakValueDictionary[tuple, OpenModel]:
        """Models in use by a pair that is open: a second pair with the same base does not load it again."""
        return WeakValueDictionary()

    @cached_property
    def _sources(self) -> dict[str, PairSource]:
        """Pairs that have been read."""
        return {}

    @cached_property
    def _annotations(self) -> list[dict[str, Any]] | None:
        return read_annotations(self.steps.roles)

    @cached_property
    def _documents(self) -> dict[str, dict[int, pd.DataFrame]]:
        """Pair -> latent -> its documents, of pairs that have been asked for."""
        return {}

    def _documents_of(self, source: PairSource) -> dict[int, pd.DataFrame]:
        """Latent -> its documents, the corpus' highest first."""
        import pandas as pd

        if source.name not in self._documents:
            tables = [table for table in (source.top, source.examples) if table is not None]
            grouped = pd.concat(tables).groupby("latent") if tables else ()
            self._documents[source.name] = {int(str(latent)): rows for latent, rows in grouped}
        return self._documents[source.name]

    @cached_property
    def compared(self) -> dict[str, Any] | None:
        """The settings of the comparison (`reference`, `treatment`, `members`); None for a single pair."""
        return self.steps.inputs("compare") if "compare" in self.steps.roles else None

    def selected(self, pair: str) -> list[int]:
        """The tuned-exclusive latents of a pair that have documents: those that labels are asked for."""
        return [row["latent"] for row in self.source(pair).selected() if row["role"] == "exclusive_tuned"]

    def _check_pair(self, pair: str) -> None:
        if pair not in self.pairs:
            raise ValueError(f"{pair!r} is no pair of {self.results}; it has {_listed(self.pairs)}")


def _refuse_differences(sources: Sequence[PairSource], lacks: str) -> None:
    """ValueError where a pair has a difference dictionary (diff_sae), which has a sign per latent."""
    for source in sources:
        if "sign" in source.latents:
            raise ValueError(f"{source.name} has a difference dictionary (diff_sae), so it has {lacks}")


def _listed(names: Sequence[Any]) -> str:
    """Up to twelve names for a message, and how many more there are."""
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return ", ".join(map(str, names[:12])) + more or "none"
