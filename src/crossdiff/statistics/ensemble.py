"""The delta table of several crosscoders per pair: pooled counts, and errors from their spread over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crossdiff.statistics.deltas import COLUMNS, Labels, Row, category_deltas, table_rows
from crossdiff.statistics.dispersion import (
    Contrasts,
    Dispersion,
    RunCounts,
    agreement,
    contrasts,
    dispersion,
    spread_of,
)
from crossdiff.statistics.significance import benjamini_hochberg
from crossdiff.taxonomy.scheme import RESERVED, Taxonomy

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.95
ENSEMBLE_COLUMNS = (
    "runs_reference", "runs_treatment", "counts_reference", "counts_treatment", "spread", "phi", "df",
    "against_median", "against_median_low", "against_median_high", "holds_against_median", "runs_agree",
)  # fmt: skip
"""Columns added to those of a single comparison; `counts_*` are the counts per run, in the given order."""


def ensemble_deltas(
    reference: Sequence[Sequence[str]],
    treatment: Sequence[Sequence[str]],
    *,
    taxonomy: Taxonomy | None = None,
    draws: int = 5000,
    seed: int = 0,
) -> pd.DataFrame:
    """The delta table of two pairs with several crosscoders each: lists of label lists, one per crosscoder.

    Counts and shares are pooled over crosscoders. Interval, p and q come from quasi-Poisson contrasts whose
    dispersion `phi` is learnt over seeds (`dispersion`, `contrasts`); q is Benjamini-Hochberg's over the
    categories, and separately over the classes. An interval has no upper limit where the reference count is
    0, and no lower one (-1) where the treatment's is. `against_median` is the change relative to the median
    category's, free of shares that moved only because others did; it holds where both intervals exclude 0 on
    the same side. `runs_agree` is the share of (reference run, treatment run) pairs with the sign of the
    pooled change, ties half.

    Crosscoders without a labelled latent are ignored. With one crosscoder on both sides (or two on one and
    one on the other) the spread over seeds cannot be measured: `spread` says `not measured`, and intervals
    and p-values are those of `category_deltas` on the pooled labels. With one crosscoder on one side (`one
    side`) the other's spread serves both, with phi of at least 1.
    """
    sides = _runs(reference, "reference"), _runs(treatment, "treatment")
    pooled = [list(chain.from_iterable(runs)) for runs in sides]
    rows = table_rows(set(pooled[0]) | set(pooled[1]), taxonomy)
    counts = [_counts(runs, rows) for runs in sides]
    table = category_deltas(*pooled, taxonomy=taxonomy, draws=draws, seed=seed)
    if spread_of(counts) != "not measured":
        table = _over_seeds(table, counts, draws=draws, seed=seed)
    return _with_runs(table, counts)


def _runs(labels: Sequence[Sequence[str]], side: str) -> list[list[str]]:
    if isinstance(labels, str) or any(isinstance(run, str) for run in labels):
        raise ValueError(
            f"the {side} of ensemble_deltas is one list of labels; give a list of such lists, one per "
            "crosscoder (category_deltas compares two crosscoders)"
        )
    if not len(labels):
        raise ValueError(
            f"the {side} of ensemble_deltas has no crosscoder; give at least one list of labels "
            "(an empty one for a crosscoder without labelled latents)"
        )
    return [list(run) for run in labels]


def _counts(runs: Sequence[Sequence[str]], rows: Sequence[Row]) -> RunCounts:
    leaves = sorted({member for row in rows for member in row.members})
    sums = np.array([[leaf in row.members for leaf in leaves] for row in rows], dtype=float)
    counts = np.array([Labels(run).counts(leaves) for run in runs], dtype=float)
    totals = np.array([len(run) for run in runs], dtype=float)
    return RunCounts(counts.reshape(len(runs), len(leaves)) @ sums.reshape(len(rows), len(leaves)).T, totals)


def _over_seeds(table: pd.DataFrame, counts: Sequence[RunCounts], *, draws: int, seed: int) -> pd.DataFrame:
    """The table with errors from the spread over seeds, and the change against the median category."""
    is_class = (table.level == "class").to_numpy()
    family = ~is_class & ~table.name.isin(RESERVED).to_numpy()
    spread = _spread(counts, is_class=is_class, family=family)
    found = contrasts(counts[0], counts[1], spread)
    counted = (counts[0].pooled + counts[1].pooled) > 0
    median, error = _median(found, family & counted, draws=draws, seed=seed)
    table["ci_low"], table["ci_high"] = _interval(found, counts)
    table["p_value"] = np.where(counted, found.p_values(), np.nan)
    table["q_value"] = np.nan
    for members in (family, is_class):
        table.loc[members, "q_value"] = benjamini_hochberg(table.loc[members, "p_value"].to_numpy(float))
    table["phi"], table["df"] = np.where(counted, spread.phi, np.nan), np.where(counted, spread.df, np.nan)
    relative = Contrasts(found.log_ratio - median, error, found.df)
    low, high = relative.interval(LEVEL)
    columns = np.where(counted, np.expm1([relative.log_ratio, low, high]), np.nan)
    for name, values in zip(("", "_low", "_high"), columns, strict=True):
        table[f"against_median{name}"] = values
    return table


def _spread(counts: Sequence[RunCounts], *, is_class: NDArray, family: NDArray) -> Dispersion:
    """Spread per name; classes are squeezed towards the categories' prior."""
    categories = dispersion(counts, learn_from=family)
    groups = [RunCounts(side.counts[:, is_class], side.totals) for side in counts]
    classes = dispersion(groups, prior=categories.prior)
    phi, df = categories.phi.copy(), categories.df.copy()
    phi[is_class], df[is_class] = classes.phi, classes.df
    return Dispersion(phi, df, categories.prior, categories.spread)


def _interval(found: Contrasts, counts: Sequence[RunCounts]) -> tuple[NDArray, NDArray]:
    """Relative changes; open where a count of 0 gives no limit, NaN without counts."""
    low, high = (np.expm1(limit) for limit in found.interval(LEVEL))
    reference, treatment = (side.pooled for side in counts)
    nothing = reference + treatment == 0
    low = np.where(nothing, np.nan, np.where(treatment == 0, -1.0, low))
    return low, np.where(nothing, np.nan, np.where(reference == 0, np.inf, high))


def _median(
    found: Contrasts, members: NDArray[np.bool_], *, draws: int, seed: int
) -> tuple[float, NDArray[np.float64]]:
    """The median category's log ratio, and the error of every row's distance to it, by normal draws.

    A class's draws are independent of those of its categories, which makes its error a little too large.
    """
    if not members.any():
        return np.nan, np.full(len(found.error), np.nan)
    noise = np.random.default_rng([seed, 9]).standard_normal((draws, len(found.error)))
    drawn = found.log_ratio + found.error * noise
    medians = np.median(drawn[:, members], axis=1, keepdims=True)
    return float(np.median(found.log_ratio[members])), (drawn - medians).std(0)


def _with_runs(table: pd.DataFrame, counts: Sequence[RunCounts]) -> pd.DataFrame:
    for name in ("phi", "df", "against_median", "against_median_low", "against_median_high"):
        if name not in table:
            table[name] = np.nan
    for side, word in zip(counts, ("reference", "treatment"), strict=True):
        table[f"runs_{word}"] = len(side.totals)
        table[f"counts_{word}"] = [" ".join(f"{count:.0f}" for count in row) for row in side.counts.T]
    table["spread"] = spread_of(counts)
    rising = table.relative_change.to_numpy(float)
    larger = agreement(*counts)
    sign = np.where(rising > 0, larger, np.where(rising < 0, 1 - larger, np.nan))
    table["runs_agree"] = sign
    table["holds_against_median"] = _holds(table)
    return table.reindex(columns=[*COLUMNS, *ENSEMBLE_COLUMNS])


def _holds(table: pd.DataFrame) -> list[str | None]:
    """`yes` where the interval and the one against the median exclude 0 on one side; None without them."""
    up = (table.ci_low > 0) & (table.against_median_low > 0)
    down = (table.ci_high < 0) & (table.against_median_high < 0)
    known = table.against_median_low.notna()
    return [("yes" if yes else "no") if have else None for yes, have in zip(up | down, known, strict=True)]
