"""How intervals over crosscoder seeds behave: coverage, type-I error, and how often any class is called.

python -m crossdiff.bench ensemble n_simulations=1000

Counts of 30 categories in 7 classes are drawn per crosscoder, with variance `phi` times their mean, and go
through `dispersion` and `contrasts`, the functions of `ensemble_deltas`. Once ten categories double and ten
halve (is the true change of share inside the 95 % interval?), once nothing changes (how many intervals
exclude it, and in how many comparisons is any q below 5 %?). `mixed` draws phi per category from .5, 1, 2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
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


class EnsembleBench(Settings):
    """Latents of the rarest and the commonest category per crosscoder, and how often they are drawn."""

    n_simulations: int = Field(default=500, ge=10)
    rarest: float = Field(default=2.0, gt=0)
    commonest: float = Field(default=18.0, gt=0)
    seed: int = 0


def main(overrides: list[str]) -> dict[str, Any]:
    """Rates per phi and number of crosscoders."""
    bench = EnsembleBench.model_validate(dict(item.split("=", 1) for item in overrides))
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


def _holds(found: Contrasts, truth: NDArray) -> NDArray[np.bool_]:
    low, high = found.interval(LEVEL)
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
