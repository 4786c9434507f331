"""How intervals over crosscoder seeds behave: coverage, type-I error, and how often any class is called.

python -m crossdiff.bench ensemble n_simulations=1000
python -m crossdiff.bench ensemble real=true        # on the counts of real crosscoders in ensemble_counts/

Counts of 30 categories in 7 classes are drawn per crosscoder, with variance `phi` times their mean, and go
through `dispersion` and `contrasts`, the functions of `ensemble_deltas`. Once ten categories double and ten
halve (is the true change of share inside the 95 % interval?), once nothing changes (how many intervals
exclude it, and in how many comparisons is any q below 5 %?). `mixed` draws phi per category from .5, 1, 2.

`real=true` reads delta tables of toy organisms with several crosscoders per pair instead, `deltas.csv` of
`python run.py experiment=demo comparison.n_seeds=8`: how often an interval of two disjoint sets of one pair's
crosscoders excludes no change, and what subsets of R crosscoders per pair find of the planted changes.
`within_reach` counts planted changes whose represented change is larger than half the interval.
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from crossdiff.settings import Settings
from crossdiff.statistics.dispersion import Contrasts, RunCounts, contrasts, dispersion
from crossdiff.statistics.significance import benjamini_hochberg

PHIS: dict[str, tuple[float, ...]] = {"0.5": (0.5,), "1": (1.0,), "2": (2.0,), "mixed": (0.5, 1.0, 2.0)}
CLASS_SIZES = (5, 4, 4, 4, 4, 4, 5)
LEVEL, OTHER = 0.95, 25.0
RUNS = (2, 3, 4, 8)
"""Crosscoders per pair."""
COUNTS = Path(__file__).parent / "ensemble_counts"


class EnsembleBench(Settings):
    """Latents of the rarest and the commonest category per crosscoder, and how often they are drawn."""

    n_simulations: int = Field(default=500, ge=10)
    rarest: float = Field(default=2.0, gt=0)
    commonest: float = Field(default=18.0, gt=0)
    seed: int = 0
    real: bool = False
    most_subsets: int = Field(default=200, ge=1)
    """Choices of crosscoders that are looked at per number of them, drawn at random where there are more."""


def main(overrides: list[str]) -> dict[str, Any]:
    """Rates per phi and number of crosscoders."""
    bench = EnsembleBench.model_validate(dict(item.split("=", 1) for item in overrides))
    if bench.real:
        return {
            "organisms": {
                path.stem: organism(path, seed=bench.seed, most_subsets=bench.most_subsets)
                for path in sorted(COUNTS.glob("*.csv"))
            }
        }
    rates = {name: {f"R={runs}": _rates(bench, phis, runs) for runs in RUNS} for name, phis in PHIS.items()}
    return {"sizes": bench.model_dump(), "rates": rates}


def _rates(bench: EnsembleBench, phis: tuple[float, ...], runs: int) -> dict[str, float]:
    generator = np.random.default_rng([bench.seed, runs, len(phis), int(10 * phis[0])])
    changes = np.repeat([2.0, 0.5, 1.0], 10)
    inside, excluded, any_category, any_class = [], [], [], []
    for _ in range(bench.n_simulations):
        means = generator.permutation(np.geomspace(bench.rarest, bench.commonest, 30))
        sides = [_drawn(generator, m, phis, runs) for m in (means, means * changes)]
        truth = np.log(changes) - np.log((means @ changes + OTHER) / (means.sum() + OTHER))
        inside.append(np.mean(_holds(contrasts(sides[0], sides[1], dispersion(sides)), truth)))
        sides = [_drawn(generator, means, phis, runs) for _ in range(2)]
        spread = dispersion(sides)
        categories = contrasts(sides[0], sides[1], spread)
        groups = [_classes(side) for side in sides]
        classes = contrasts(groups[0], groups[1], dispersion(groups, prior=spread.prior))
        excluded.append(1 - np.mean(_holds(categories, np.zeros(30))))
        any_category.append((benjamini_hochberg(categories.p_values()) < 1 - LEVEL).any())
        any_class.append((benjamini_hochberg(classes.p_values()) < 1 - LEVEL).any())
    names = ("coverage", "type_one", "any_category", "any_class")
    values = (inside, excluded, any_category, any_class)
    return {name: round(float(np.mean(value)), 4) for name, value in zip(names, values, strict=True)}


def _holds(estimates: Contrasts, truth: NDArray) -> NDArray[np.bool_]:
    low, high = estimates.interval(LEVEL)
    return (low <= truth) & (truth <= high)


def _classes(side: RunCounts) -> RunCounts:
    starts = np.cumsum((0, *CLASS_SIZES[:-1]))
    return RunCounts(np.add.reduceat(side.counts, starts, axis=1), side.totals)


def _drawn(generator: np.random.Generator, means: NDArray, phis: tuple[float, ...], runs: int) -> RunCounts:
    """Counts per crosscoder: binomial below phi = 1, Poisson at it, negative binomial above."""
    every = np.append(means, OTHER)
    columns = []
    for mean, phi in zip(every, generator.choice(phis, len(every)), strict=True):
        if phi < 1:
            size = mean / (1 - phi)  # between two whole numbers: one of them by chance
            sizes = np.floor(size + generator.random(runs)).astype(int)
            columns.append(generator.binomial(sizes, 1 - phi))
        elif phi > 1:
            columns.append(generator.negative_binomial(mean / (phi - 1), 1 / phi, runs))
        else:
            columns.append(generator.poisson(mean, runs))
    counts = np.array(columns, float).T
    return RunCounts(counts[:, :-1], counts.sum(1))


def organism(path: Path, *, seed: int, most_subsets: int) -> dict[str, Any]:
    """Type-I error within either pair, and what R crosscoders per pair find, by R."""
    table: Any = pd.read_csv(path)
    is_class = (table.level == "class").to_numpy()
    sides = [_counted(table[f"counts_{side}"], is_class) for side in ("reference", "treatment")]
    table = table[~is_class]
    family = table.planted_change.notna().to_numpy()
    generator = np.random.default_rng(seed)
    most = min(len(side.totals) for side in sides)
    outcome: dict[str, Any] = {"members": most, "changes": {}, "null": {}}
    for runs in range(2, most + 1):
        chosen = list(combinations(range(most), runs))
        if len(chosen) ** 2 <= most_subsets:
            pairs = [(one, other) for one in chosen for other in chosen]
        else:
            drawn = generator.integers(len(chosen), size=(most_subsets, 2)).tolist()
            pairs = [(chosen[one], chosen[other]) for one, other in drawn]
        outcome["changes"][f"R={runs}"] = _mean([_calls(_some(sides, pair), table) for pair in pairs])
        splits = [(one, other) for one, other in combinations(chosen, 2) if not set(one) & set(other)]
        if splits:
            nulls = [_nothing(_some((side, side), pair), family) for side in sides for pair in splits]
            outcome["null"][f"R={runs}"] = {"splits": len(nulls), **_mean(nulls)}
    return outcome


def _counted(column: pd.Series, is_class: NDArray[np.bool_]) -> RunCounts:
    """Counts per crosscoder of the categories; a class row holds the sum of its own."""
    counts = np.array([[float(count) for count in row.split()] for row in column]).T
    return RunCounts(counts[:, ~is_class], counts[:, ~is_class].sum(1))


def _some(sides: Any, chosen: Any) -> tuple[RunCounts, RunCounts]:
    one, other = (
        RunCounts(side.counts[list(runs)], side.totals[list(runs)])
        for side, runs in zip(sides, chosen, strict=True)
    )
    return one, other


def _intervals(
    sides: tuple[RunCounts, RunCounts], family: NDArray[np.bool_]
) -> tuple[Contrasts, NDArray, NDArray]:
    estimates = contrasts(sides[0], sides[1], dispersion(sides, learn_from=family))
    return estimates, *estimates.interval(LEVEL)


def _nothing(sides: tuple[RunCounts, RunCounts], family: NDArray[np.bool_]) -> dict[str, float]:
    """Of two sets of one pair's crosscoders: intervals that exclude 0, and whether any q is below 5 %."""
    estimates, low, high = _intervals(sides, family)
    counted = family & (sides[0].pooled + sides[1].pooled > 0)
    q_values = benjamini_hochberg(estimates.p_values()[counted])
    return {
        "type_one": float(((low > 0) | (high < 0))[counted].mean()),
        "any_category": float((q_values < 1 - LEVEL).any()),
    }


def _calls(sides: tuple[RunCounts, RunCounts], table: pd.DataFrame) -> dict[str, float]:
    """Planted changes called on their side or the other, unplanted ones called, by interval and by q."""
    planted = table.planted_change.to_numpy(float)
    family = np.isfinite(planted)
    estimates, low, high = _intervals(sides, family)
    q_values = np.full(len(planted), np.nan)
    q_values[family] = benjamini_hochberg(estimates.p_values()[family])
    rows: dict[str, float] = {}
    by_q = np.where(q_values < 1 - LEVEL, np.sign(estimates.log_ratio), 0)
    for name, call in (("interval", np.where(low > 0, 1, np.where(high < 0, -1, 0))), ("q", by_q)):
        rows[f"right_{name}"] = float(((call == np.sign(planted)) & (planted != 0) & family).sum())
        rows[f"wrong_{name}"] = float(((call == -np.sign(planted)) & (planted != 0) & family).sum())
        rows[f"unplanted_{name}"] = float(((call != 0) & (planted == 0)).sum())
    truth = np.log1p(table.represented_change.to_numpy(float))
    known = np.isfinite(truth)
    rows["within_reach"] = float((truth * np.sign(planted) > (high - low) / 2)[known & family].sum())
    rows["holds_represented"] = float(((low <= truth) & (truth <= high))[known].mean())
    ranks: Any = pd.DataFrame({"planted": planted, "represented": truth, "change": estimates.log_ratio})[
        family
    ].rank()
    for name in ("planted", "represented"):
        if ranks[name].nunique() > 1:
            rows[f"spearman_{name}"] = float(ranks[name].corr(ranks["change"]))
    return rows


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(float(np.mean([row[name] for row in rows])), 3) for name in rows[0]}
