"""Corpora of different composition: which categories appear, which vanish?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from crossdiff.data.corpus import CorpusSettings, MixtureCorpus, Source, as_mixture
from crossdiff.io.tables import where
from crossdiff.report import tables
from crossdiff.report.formatting import readable
from crossdiff.report.runs import RunProducts
from crossdiff.report.study_page import Chart, Findings
from crossdiff.settings import Settings
from crossdiff.stages.study import Asked, Changes, Study
from crossdiff.statistics.verdict import LEVEL
from crossdiff.studies.changes import CategoryCounts, changes_chart
from crossdiff.studies.shared import counts_chart

if TYPE_CHECKING:
    import pandas as pd


MOVED = (
    "name", "count_reference", "total_reference", "count_treatment", "total_treatment", "p_value", "q_value",
)  # fmt: skip


class Composition(Settings):
    """A corpus by the weights of its sources, without sources that are not named."""

    name: str
    weights: dict[str, float] = Field(min_length=1)

    def corpus(self, sources: Mapping[str, Source], asked: CorpusSettings) -> MixtureCorpus:
        """The experiment's corpus with these weights."""
        unknown = sorted(set(self.weights) - set(sources))
        if unknown:
            raise ValueError(
                f"study.compositions: {self.name} weighs the source {unknown[0]!r}, and there are "
                f"{', '.join(sources)}; name one of those or add it to study.more_sources"
            )
        chosen = [sources[n].model_copy(update={"weight": weight}) for n, weight in self.weights.items()]
        changes = {"name": f"{asked.name}_{self.name}", "sources": tuple(chosen)}
        return as_mixture(asked).model_copy(update=changes)


class Corpus(Study):
    """The same comparison on every composition; the others are compared with the first."""

    QUESTION: ClassVar[str] = "Which categories appear and vanish with the composition of the corpus?"

    compositions: tuple[Composition, ...] = Field(min_length=2)
    more_sources: tuple[Source, ...] = ()

    def runs(self, experiment: Asked) -> Mapping[str, Changes]:
        """One run per composition."""
        known = {
            source.name: source for source in (*as_mixture(experiment.corpus).sources, *self.more_sources)
        }
        return {
            composition.name: {"corpus": composition.corpus(known, experiment.corpus)}
            for composition in self.compositions
        }

    def analyse(self, runs: Mapping[str, RunProducts], extras: Mapping[str, Path]) -> Findings:
        """Labels of a run's exclusive latents against those of the first run."""
        first, *others = list(runs.values())
        moves = {run.name: moved(first, run) for run in others}
        charts = [counts_chart(runs, x_title="corpus"), _table(first.name, moves)]
        if first.comparison is not None:
            counts = CategoryCounts.of(list(runs.values()))
            charts.append(changes_chart(counts, runs))
        numbers = {name: rows.to_dict("records") for name, rows in moves.items()}
        return Findings(_answer(first.name, moves), charts=tuple(charts), numbers=numbers)


def labels_of(run: RunProducts) -> list[str]:
    """Categories of the answered tuned-exclusive latents of all pairs of a run."""
    return [label for pair in run.pairs for label in run.labels(pair).values()]


def moved(first: RunProducts, other: RunProducts) -> pd.DataFrame:
    """Per category: counts in both corpora, p (Fisher) and q (Benjamini-Hochberg)."""
    from crossdiff.statistics.deltas import category_deltas
    from crossdiff.taxonomy.scheme import RESERVED, load_taxonomy

    taxonomy = load_taxonomy(first.folder / "taxonomy.yaml")
    deltas = category_deltas(labels_of(first), labels_of(other), taxonomy=taxonomy, draws=1000)
    categories = where(deltas, level="category")
    return categories.loc[~categories["name"].isin(RESERVED), list(MOVED)]


def _table(first: str, moves: Mapping[str, pd.DataFrame]) -> Chart:
    rows: list[list[Any]] = []
    for name, frame in moves.items():
        for row in frame.to_dict("records"):
            before, after = int(row["count_reference"]), int(row["count_treatment"])
            fate = "appears" if not before and after else "vanishes" if before and not after else ""
            if not _labelled(frame):
                fate = "unknown"
            if before or after:
                rows.append(
                    [name, readable(row["name"]), before, after, fate, row["p_value"], row["q_value"]]
                )
    titles = ["Corpus", "Category", f"Latents, {first}", "Latents here", "Fate", "p", "q"]
    caption = "Labelled exclusive latents of all pairs; p: Fisher's exact test, q: Benjamini-Hochberg."
    table = tables.plain(titles, rows, numeric=[2, 3, 5, 6])
    return Chart("fates", f"Categories against corpus {first}", caption, table=table)


def _labelled(frame: pd.DataFrame) -> bool:
    """Whether both corpora have a labelled latent, so that categories can appear or vanish."""
    return bool((frame.total_reference > 0).any() and (frame.total_treatment > 0).any())


def _answer(first: str, moves: Mapping[str, pd.DataFrame]) -> str:
    parts = []
    for name, frame in moves.items():
        if not _labelled(frame):
            without = name if (frame.total_reference > 0).any() else first
            parts.append(f"on {name} nothing can be said ({without} has no labelled exclusive latent)")
            continue
        appear = int(((frame.count_reference == 0) & (frame.count_treatment > 0)).sum())
        vanish = int(((frame.count_reference > 0) & (frame.count_treatment == 0)).sum())
        clear = int((frame.q_value < LEVEL).sum())
        parts.append(
            f"on {name} {appear} categories appear and {vanish} vanish ({clear} change beyond chance)"
        )
    return f"Against corpus {first}, {'; '.join(parts)}."
