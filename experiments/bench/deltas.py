"""How the delta table behaves at the study's counts: coverage of its intervals, validity of its p-values.

python -m crossdiff.bench deltas n_simulations=2000

Labels of both pairs are drawn from known shares of the paper's categories and go through `category_deltas`,
the function of the compare stage. Once some shares change (is the true change inside the 95 % interval?),
once none does (how often is a p-value at most a?). `se` is a binomial standard error of the simulation. The
smallest max-T p of a table should be uniform, every other p-value valid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field
from scipy import stats

from crossdiff.settings import Settings
from crossdiff.statistics.deltas import SMALL_SHARE, category_deltas
from crossdiff.taxonomy.scheme import RESERVED, PaperTaxonomy

LEVELS = (0.01, 0.05, 0.1)
SHARES = (0.15, 0.1, 0.1, 0.08, 0.06, 0.05, 0.05, 0.03, 0.03, 0.02, 0.02)
"""Of one category of every class in turn; the other categories have none, `other` the rest."""
RATIOS = (1.5, 1.0, 0.6, 1.0, 1.5, 1.0, 1.5, 1.0, 1.5, 1.0, 1.5)
"""Treatment over reference where shares change."""


class DeltasBench(Settings):
    """Latents of the two pairs (the study's by default) and how often they are drawn."""

    n_reference: int = Field(default=113, ge=1)
    n_treatment: int = Field(default=92, ge=1)
    n_simulations: int = Field(default=1000, ge=10)
    draws: int = Field(default=999, ge=99)
    seed: int = 0


def main(overrides: list[str]) -> dict[str, Any]:
    """Coverage per range of true shares, and the shares of p-values at or below each level."""
    bench = DeltasBench.model_validate(dict(item.split("=", 1) for item in overrides))
    return {
        "sizes": bench.model_dump(),
        "coverage": coverage(simulated(bench, ratios=RATIOS)),
        "no_difference": validity(simulated(bench, ratios=(1.0,) * len(RATIOS))),
    }


def names() -> list[str]:
    """The categories that have a share: one of every class in turn."""
    groups = [[category.name for category in group.categories] for group in PaperTaxonomy().load().classes]
    turns = [group[turn] for turn in range(max(map(len, groups))) for group in groups if turn < len(group)]
    return turns[: len(SHARES)]


def simulated(bench: DeltasBench, *, ratios: Sequence[float]) -> pd.DataFrame:
    """The delta tables of all simulations, with the true shares of categories in `true_*` columns."""
    shares = {"reference": np.array(SHARES), "treatment": np.array(SHARES) * ratios}
    generator, taxonomy = np.random.default_rng([bench.seed, 11]), PaperTaxonomy().load()
    tables = []
    for number in range(bench.n_simulations):
        sides = [
            _drawn(shares[side], total, generator)
            for side, total in (("reference", bench.n_reference), ("treatment", bench.n_treatment))
        ]
        table = category_deltas(*sides, taxonomy=taxonomy, draws=bench.draws, seed=number)
        tables.append(table.assign(simulation=number))
    every = pd.concat(tables, ignore_index=True)
    for side, true in shares.items():
        every[f"true_{side}"] = every.name.map(dict(zip(names(), true, strict=True)))
    return every


def _drawn(shares: NDArray[np.float64], total: int, generator: np.random.Generator) -> list[str]:
    counts = generator.multinomial(total, [*shares, 1 - shares.sum()])
    return [name for name, count in zip([*names(), RESERVED[0]], counts, strict=True) for _ in range(count)]


def coverage(simulated: pd.DataFrame) -> dict[str, Any]:
    """Share of cases whose interval holds the true change, by the smaller true share and per category.

    A table in which neither pair has the category makes no case: it has no interval.
    """
    cases = simulated[(simulated.level == "category") & simulated.true_reference.notna()]
    change = cases.true_treatment / cases.true_reference - 1
    inside = (cases.ci_low <= change + 1e-12) & (change <= cases.ci_high + 1e-12)
    counted = cases.count_reference + cases.count_treatment > 0
    smaller = cases[["true_reference", "true_treatment"]].min(axis=1)
    small = smaller < SMALL_SHARE - 1e-12
    categories = {
        name: {
            "smaller_share": round(float(np.asarray(smaller[chosen])[0]), 4),
            **_rate(inside[chosen & counted]),
        }
        for name in names()
        for chosen in [cases.name == name]
    }
    return {
        "shares_from_5_percent": _rate(inside[~small & counted]),
        "shares_below_5_percent": _rate(inside[small & counted]),
        "categories": categories,
    }


def validity(simulated: pd.DataFrame) -> dict[str, Any]:
    """Kolmogorov-Smirnov p of the smallest max-T p per table, and how often p-values fall to a level.

    A class or category that neither pair has in a table has no p-value; it counts as not below the level.
    """
    classes = simulated[simulated.level == "class"].pivot_table(
        index="simulation", columns="name", values="p_value"
    )
    known = (simulated.level == "category") & simulated.true_reference.notna()
    categories = simulated[known].pivot_table(index="simulation", columns="name", values="p_value")
    families: Mapping[str, pd.DataFrame] = {
        "smallest_max_t": classes.min(axis=1).to_frame(),
        "class_max_t": classes,
        "category_fisher": categories,
    }
    return {
        "smallest_max_t_ks_p": float(stats.kstest(classes.min(axis=1), "uniform").pvalue),
        **{name: _exceedances(family) for name, family in families.items()},
    }


def _exceedances(p_values: pd.DataFrame) -> dict[str, dict[str, float | bool]]:
    """Per level a: the largest P(p <= a) over the columns, and whether it is within a + 2 standard errors."""
    result = {}
    for level in LEVELS:
        worst = float((p_values.fillna(1.0) <= level).mean().max())
        error = float(np.sqrt(level * (1 - level) / len(p_values)))
        result[str(level)] = {"largest_rate": worst, "se": error, "valid": worst <= level + 2 * error}
    return result


def _rate(inside: pd.Series) -> dict[str, float | int]:
    rate = float(inside.mean()) if len(inside) else float("nan")
    error = float(np.sqrt(rate * (1 - rate) / len(inside))) if len(inside) else float("nan")
    return {"covered": rate, "se": error, "n_cases": len(inside)}
