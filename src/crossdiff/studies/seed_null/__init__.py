"""Null: changes between two crosscoders of one pair that differ in their seed alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from crossdiff.io.tables import known, read_json, rows_of, where
from crossdiff.models.pair import ModelPair
from crossdiff.report import tables
from crossdiff.report.formatting import tile, told
from crossdiff.report.runs import RunProducts
from crossdiff.report.study_page import Chart, Findings
from crossdiff.stages.study import Asked, Changes, ExtraStep, From, Study
from crossdiff.statistics.seed_null import SeedNullChanges
from crossdiff.statistics.verdict import claims
from crossdiff.studies.changes import CategoryCounts, changes_chart
from crossdiff.studies.seed_null.consistency import GROUPS, ConsistencyInputs
from crossdiff.studies.shared import counts_chart
from crossdiff.taxonomy.scheme import RESERVED

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


class SeedNull(Study):
    """`n_comparisons` of the first pair with itself, each with new crosscoders (method.md section 6)."""

    QUESTION: ClassVar[str] = (
        "Which category changes appear between two crosscoders of one and the same pair?"
    )

    n_comparisons: int = Field(default=2, ge=1)

    def runs(self, experiment: Asked) -> Mapping[str, Changes]:
        """Seeds 0 against 1, 2 against 3, ..., from the experiment's seed on."""
        pair = experiment.pairs[0]
        return {
            f"seeds_{a}_{b}": {"model_pair": None, "comparison": against(pair, a, b)}
            for a, b in self._seeds(experiment)
        }

    def extras(self, experiment: Asked) -> Mapping[str, ExtraStep]:
        """PW-MCC of the two crosscoders of each comparison."""
        pair, steps = experiment.pairs[0], {}
        for seeds in self._seeds(experiment):
            run = f"seeds_{seeds[0]}_{seeds[1]}"
            parents = {
                f"{stage}_{side}": From(run, stage, f"{pair.name}_seed{seed}")
                for stage in ("train", "scale")
                for side, seed in zip("ab", seeds, strict=True)
            }
            label = f"{pair.name} seeds {seeds[0]} and {seeds[1]}"
            steps[run] = ExtraStep("consistency", label, ConsistencyInputs(seed=seeds[0]), parents)
        return steps

    def _seeds(self, experiment: Asked) -> list[tuple[int, int]]:
        first = experiment.seed
        return [(first + 2 * i, first + 2 * i + 1) for i in range(self.n_comparisons)]

    def analyse(self, runs: Mapping[str, RunProducts], extras: Mapping[str, Path]) -> Findings:
        """Spread of the changes without a difference, calls beyond chance, and recurring latents."""
        counts = CategoryCounts.of(list(runs.values()))
        logs = counts.log_changes()
        null = SeedNullChanges.of([run.deltas() for run in runs.values()])
        numbers = {
            **spread(logs),
            **interval_calls(run.deltas() for run in runs.values()),
            "null": None if null is None else null.model_dump(),
            "by_run": {name: _null_of(run) for name, run in runs.items()},
            "runs": {name: twins(run) for name, run in runs.items()},
            "consistency": {name: read_json(folder / "consistency.json") for name, folder in extras.items()},
        }
        charts = (counts_chart(runs, x_title="run"), changes_chart(counts, runs), _twin_chart(runs))
        charts += (_consistency_chart(numbers["consistency"]),)
        return Findings(_answer(numbers), tiles=_tiles(numbers), charts=charts, numbers=numbers)


def against(pair: ModelPair, first: int, second: int) -> dict[str, ModelPair]:
    """The comparison of a pair with itself, under two seeds."""
    return {
        side: pair.model_copy(update={"name": f"{pair.name}_seed{seed}", "seed": seed})
        for side, seed in (("reference", first), ("treatment", second))
    }


def _null_of(run: RunProducts) -> dict[str, Any]:
    """One comparison's part of the null, with its pairs."""
    null = SeedNullChanges.of([run.deltas()])
    return {"pairs": list(run.pairs), "null": None if null is None else null.model_dump()}


def spread(logs: NDArray) -> dict[str, Any]:
    """Deviation of the log changes of all categories and runs about 0, and their central 95 %."""
    known = logs[~np.isnan(logs)]
    if not len(known):
        return {"n_changes": 0, "log_deviation": None, "change_low": None, "change_high": None}
    low, high = np.expm1(np.percentile(known, [2.5, 97.5]))
    deviation = float(np.sqrt(np.mean(known**2)))
    return {
        "n_changes": len(known),
        "log_deviation": deviation,
        "change_low": float(low),
        "change_high": float(high),
    }


def interval_calls(tables_of_deltas: Iterable[pd.DataFrame]) -> dict[str, int]:
    """Number of categories whose 95 % interval excludes no change, and of those with q below 5 %.

    `other` and `uninterpretable` are left out; they are not tested (q is NaN).
    An interval without an upper limit (no latent in the reference) counts like any other.
    """
    n_intervals = n_clear = n_significant = 0
    for deltas in tables_of_deltas:
        judged = rows_of(known(where(deltas, level="category"), "ci_low"))
        rows = [row for row in judged if row.name not in RESERVED]
        n_intervals += len(rows)
        n_clear += sum(row.ci_low > 0 or row.ci_high < 0 for row in rows)
        n_significant += len(where(claims(deltas), level="category"))
    return {"n_intervals": n_intervals, "n_clear": n_clear, "n_significant": n_significant}


def twins(run: RunProducts) -> dict[str, Any]:
    """Per pair of the run: exclusive latents, and those with a twin under the other seed."""
    matched = (run.comparison or {}).get("matched") or {}
    return {
        pair: {k: c[k] for k in ("n_exclusive", "twin", "new")}
        for pair, c in matched.get("counts", {}).items()
    }


def _answer(numbers: Mapping[str, Any]) -> str:
    if not numbers["n_changes"]:
        return "No comparison has a labelled exclusive latent in a category, so the null has nothing to show."
    return (
        f"Between crosscoders that differ in their seed alone, {numbers['n_clear']} of "
        f"{numbers['n_intervals']} category intervals exclude no change (5 % on average if their level "
        "holds; categories of one comparison share their latents, so these are not independent trials) and "
        f"{numbers['n_significant']} pass correction; 95 % of the changes lie between "
        f"{told(numbers['change_low'], '+.0%')} and {told(numbers['change_high'], '+.0%')}."
    )


def _tiles(numbers: Mapping[str, Any]) -> tuple[dict[str, str], ...]:
    counts = [pair for run in numbers["runs"].values() for pair in run.values()]
    n_twins, n_all = (sum(pair[name] for pair in counts) for name in ("twin", "n_exclusive"))
    return (
        tile(
            "Intervals that exclude no change",
            f"{numbers['n_clear']} of {numbers['n_intervals']}",
            "5 % expected on average; not independent",
        ),
        tile(
            "Exclusive latents with a twin under the other seed",
            f"{n_twins} of {n_all}",
            "direction and code",
        ),
    )


def _twin_chart(runs: Mapping[str, RunProducts]) -> Chart:
    caption = "Exclusive latents for which one latent under the other seed agrees in direction and in code."
    rows = [
        [name, pair, counts["n_exclusive"], counts["twin"], counts["new"]]
        for name, run in runs.items()
        for pair, counts in twins(run).items()
    ]
    table = tables.plain(["Run", "Pair", "Exclusive", "Twin", "New"], rows, numeric=[2, 3, 4])
    return Chart("twins", "Latents that recur under another seed", caption, table=table)


def _consistency_chart(records: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Chart:
    caption = (
        "PW-MCC: mean |cosine| of the decoder directions (both models side by side) under the best "
        "one-to-one matching of the two seeds' latents (Song et al. 2025, arXiv 2505.20254); by chance: of "
        "as many random directions. Not computed where a side has no such latent or too many."
    )
    rows = [
        [name, group, *record[group]["n_latents"], *(_told(record[group][key]) for key in MCC)]
        for name, record in records.items()
        for group in GROUPS
    ]
    titles = ["Run", "Latents", "First seed", "Second seed", "PW-MCC", "By chance"]
    table = tables.plain(titles, rows, numeric=range(2, len(titles)))
    return Chart("consistency", "How alike the two seeds' decoders are", caption, table=table)


MCC = ("pw_mcc", "by_chance")


def _told(value: float | None) -> str:
    return "not computed" if value is None else f"{value:.2f}"
