"""Category changes of several comparisons: signs, rank correlations, and their values by chance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from crossdiff.report.runs import RunProducts
from crossdiff.report.study_page import Chart
from crossdiff.statistics.intervals import log_ratio
from crossdiff.statistics.pooling import spearman
from crossdiff.taxonomy.scheme import RESERVED

if TYPE_CHECKING:
    from crossdiff.report.tables import Table

DRAWS = 1000


@dataclass(frozen=True)
class CategoryCounts:
    """Labelled exclusive latents per run, pair (reference, treatment) and category; `rest` is `other`."""

    names: tuple[str, ...]
    counts: Int[NDArray, "run side category"]
    rest: Int[NDArray, "run side"]

    @classmethod
    def of(cls, runs: Sequence[RunProducts]) -> CategoryCounts:
        """Counts from the delta tables of comparisons with one taxonomy."""
        tables = []
        for run in runs:
            deltas = run.deltas()
            tables.append(deltas[deltas.level == "category"].set_index("name"))
        names = tuple(name for name in tables[0].index if name not in RESERVED)
        counts = [
            [t.loc[list(names), f"count_{side}"] for side in ("reference", "treatment")] for t in tables
        ]
        totals = [[t[f"total_{side}"].iloc[0] for side in ("reference", "treatment")] for t in tables]
        filled = np.array(counts, dtype=np.int64).reshape(len(tables), 2, len(names))
        return cls(names, filled, np.array(totals, dtype=np.int64) - filled.sum(axis=2))

    @property
    def totals(self) -> Int[NDArray, "run side"]:
        """Labelled latents, including those outside the categories."""
        return self.counts.sum(axis=2) + self.rest

    def log_changes(self) -> Float[NDArray, "run category"]:
        """Log ratio of shares, 1/2 added to counts and totals; NaN where neither pair has the category, or
        where one pair has no labelled latent at all."""
        totals = self.totals
        logs = [
            log_ratio(counts[1], counts[0], n_treatment=int(total[1]), n_reference=int(total[0]))
            for counts, total in zip(self.counts, totals, strict=True)
        ]
        known = (self.counts.sum(axis=1) > 0) & (totals > 0).all(axis=1, keepdims=True)
        return np.where(known, np.array(logs), np.nan)

    def changes(self) -> Float[NDArray, "run category"]:
        """Relative changes: the exponential of `log_changes`, minus 1."""
        return np.expm1(self.log_changes())

    def resampled(self, generator: np.random.Generator) -> CategoryCounts:
        """Counts of latents resampled with replacement within every run and pair."""
        drawn = np.zeros_like(self.counts)
        rest = np.zeros_like(self.rest)
        for place in np.ndindex(*self.rest.shape):
            cells = np.append(self.counts[place], self.rest[place]).astype(float)
            if cells.sum():
                new = generator.multinomial(int(cells.sum()), cells / cells.sum())
                drawn[place], rest[place] = new[:-1], new[-1]
        return CategoryCounts(self.names, drawn, rest)


def same_sign(logs: Float[NDArray, "run category"]) -> tuple[int, int]:
    """Number of categories whose change has one sign in all runs, and number known in all runs."""
    judged = ~np.isnan(logs).any(axis=0)
    signs = np.sign(logs[:, judged])
    kept = (signs != 0).all(axis=0) & (signs == signs[:1]).all(axis=0)
    return int(kept.sum()), int(judged.sum())


def stability(counts: CategoryCounts, *, seed: int = 0, draws: int = DRAWS) -> dict[str, Any]:
    """Agreement of the runs on the categories' changes.

    `kept` of `judged` categories keep their sign; `share_low`, `share_high` is the 95 % percentile interval
    of this share over resampled latents; `chance` the mean of `kept` when every run's changes are shuffled
    over its known categories. `spearman` is the mean rank correlation of two runs.
    """
    generator = np.random.default_rng([seed, 7])
    logs = counts.log_changes()
    kept, judged = same_sign(logs)
    drawn = [same_sign(counts.resampled(generator).log_changes()) for _ in range(draws)]
    shares = [k / n for k, n in drawn if n]
    low, high = np.percentile(shares, [2.5, 97.5]) if shares else (np.nan, np.nan)
    shuffled = [same_sign(_shuffled(logs, generator))[0] for _ in range(draws)]
    return {
        "kept": kept,
        "judged": judged,
        "share": kept / judged if judged else float("nan"),
        "share_low": float(low),
        "share_high": float(high),
        "chance": float(np.mean(shuffled)),
        "spearman": mean_correlation(logs),
    }


def mean_correlation(logs: Float[NDArray, "run category"]) -> float:
    """Mean Spearman correlation over pairs of runs, on categories known in both; NaN without any."""
    correlations = []
    for first in range(len(logs)):
        for second in range(first):
            both = ~np.isnan(logs[[first, second]]).any(axis=0)
            if both.sum() >= 3:
                correlations.append(spearman(logs[first, both], logs[second, both]))
    known = [value for value in correlations if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _shuffled(logs: NDArray, generator: np.random.Generator) -> NDArray:
    rows = logs.copy()
    for row in rows:
        known = ~np.isnan(row)
        row[known] = generator.permutation(row[known])
    return rows


def changes_chart(counts: CategoryCounts, runs: Iterable[str]) -> Chart:
    """Heat map and table of the changes of every category in every run."""
    from crossdiff.report.figures import multiverse

    names = [run.replace("_", " ") for run in runs]
    values = counts.changes().T
    return Chart(
        "changes",
        "Change of every category, run by run",
        "Relative change of the share of labelled exclusive latents, treatment against reference, on a log "
        "scale (1/2 added to every count); empty squares: neither pair has a latent of the category.",
        multiverse(counts.names, names, values.tolist()),
        changes_table(counts, names),
    )


def changes_table(counts: CategoryCounts, names: list[str]) -> Table:
    """Counts of both pairs and the change, per category and run."""
    from crossdiff.report import tables
    from crossdiff.report.formatting import change_text, readable

    rows = []
    changes = counts.changes()
    for index, name in enumerate(counts.names):
        cells: list[Any] = [readable(name)]
        for run in range(len(names)):
            reference, treatment = counts.counts[run, :, index]
            value = float(changes[run, index])
            cells.append(
                tables.Cell(f"{change_text(value)} ({treatment} vs {reference})", sort=_known(value))
            )
        rows.append(cells)
    return tables.plain(["Category", *names], rows, numeric=range(1, len(names) + 1))


def _known(value: float) -> float | None:
    return value if value == value else None
