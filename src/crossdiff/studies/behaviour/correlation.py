"""Rank correlation of latent changes with changes of behaviour, over categories.

Tasks and scores of one category share the latents' change, and every run meets the same copy of a log: they
are no independent points. Each category is one point, the mean over its tasks, scores and runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossdiff.statistics.pooling import rank_correlations, spearman

MIN_CATEGORIES = 6
"""Resampling fewer points gives an interval that is too narrow to be told."""


def correlation(
    points: Sequence[Mapping[str, Any]], with_what: str, *, draws: int = 2000
) -> dict[str, float | int]:
    """Spearman's rho of two changes over categories; 95 % percentile interval over resampled categories.

    Points without either value are left out; `n` counts the categories of the others. rho is NaN for fewer
    than three categories or where one side is constant, the bounds below `MIN_CATEGORIES`.
    """
    left, right = _by_category(points, with_what)
    nothing = float("nan")
    found = {"n": len(left), "rho": _rho(left, right), "ci_low": nothing, "ci_high": nothing}
    if len(left) < MIN_CATEGORIES:
        return found
    generator = np.random.default_rng([0, 13])
    chosen = generator.integers(len(left), size=(draws, len(left)))
    low, high = _bounds(rank_correlations(left[chosen], right[chosen]))
    return found | {"ci_low": low, "ci_high": high}


def _by_category(points: Sequence[Mapping[str, Any]], with_what: str) -> tuple[NDArray, NDArray]:
    """Mean of both changes per category, over the points that have both."""
    values: dict[str, list[tuple[float, float]]] = {}
    for point in points:
        pair = (float(point["latents"]), float(point[with_what]))
        if not np.isnan(pair).any():
            values.setdefault(point["category"], []).append(pair)
    means = np.array([np.mean(pairs, axis=0) for pairs in values.values()]).reshape(-1, 2)
    return means[:, 0], means[:, 1]


def _rho(left: NDArray, right: NDArray) -> float:
    if len(left) < 3 or not np.ptp(left) or not np.ptp(right):
        return float("nan")
    return spearman(left, right)


def _bounds(drawn: NDArray) -> tuple[float, float]:
    known = drawn[~np.isnan(drawn)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)
