"""Rank correlations of changes: recovered with planted ones over several runs, latents' with behaviour's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

GROUPS = ("gain", "keep", "loss")


MIN_CATEGORIES = 6
"""Resampling fewer points gives an interval that is too narrow to be told."""


@dataclass(frozen=True)
class PlantedRun:
    """One run: per category its planted change and group, and the counts of both pairs.

    `rest_reference` and `rest_treatment` are the labelled latents outside the categories (other).
    """

    planted: np.ndarray
    group: np.ndarray
    reference: np.ndarray
    treatment: np.ndarray
    rest_reference: int
    rest_treatment: int

    def resampled(self, generator: np.random.Generator) -> PlantedRun:
        """The run with latents redrawn with replacement within each pair."""
        reference = _redraw(self.reference, self.rest_reference, generator)
        treatment = _redraw(self.treatment, self.rest_treatment, generator)
        return PlantedRun(
            self.planted, self.group, reference[:-1], treatment[:-1], int(reference[-1]), int(treatment[-1])
        )

    def log_changes(self) -> np.ndarray:
        """Log ratio of shares per category; 1/2 is added to every count so that none is infinite."""
        n_reference = self.reference.sum() + self.rest_reference
        n_treatment = self.treatment.sum() + self.rest_treatment
        ratio = (self.treatment + 0.5) / (n_treatment + 0.5) * (n_reference + 0.5) / (self.reference + 0.5)
        return np.log(ratio)


def read_run(deltas: pd.DataFrame, planted: Sequence[dict[str, Any]]) -> PlantedRun:
    """A run from its delta table and the `planted` list of its summary.json."""
    import pandas as pd

    rows = deltas[deltas.level == "category"].set_index("name")
    truth = pd.DataFrame(planted).set_index("name")
    measured = rows.loc[truth.index]
    return PlantedRun(
        planted=truth["change"].to_numpy(float),
        group=truth["group"].to_numpy(str),
        reference=measured.count_reference.to_numpy(int),
        treatment=measured.count_treatment.to_numpy(int),
        rest_reference=int(rows.total_reference.iloc[0] - measured.count_reference.sum()),
        rest_treatment=int(rows.total_treatment.iloc[0] - measured.count_treatment.sum()),
    )


def pooled_recovery(runs: Sequence[PlantedRun], *, seed: int = 0, draws: int = 2000) -> dict[str, Any]:
    """Spearman correlation and group changes over all runs, with 95 % intervals.

    The correlation is over (run, category) points and its interval from resampling those points. A
    group's change is its share over all runs, treatment over reference, - 1; intervals of the changes
    and of their log-ratio differences to `keep` resample latents within every run and pair.
    """
    generator = np.random.default_rng(seed)
    planted = np.concatenate([run.planted for run in runs])
    recovered = np.concatenate([run.log_changes() for run in runs])
    points = generator.integers(len(planted), size=(draws, len(planted)))
    correlations = rank_correlations(planted[points], recovered[points])
    logs = np.array([_group_logs([run.resampled(generator) for run in runs]) for _ in range(draws)])
    logs_of_groups = _group_logs(runs)
    keep = GROUPS.index("keep")
    return {
        "n_runs": len(runs),
        "n_points": len(planted),
        "spearman": {"rho": spearman(planted, recovered), **_interval(correlations)},
        "groups": {
            name: {
                "counts": [
                    int(sum(values[run.group == name].sum() for run, values in side)) for side in _sides(runs)
                ],
                "change": float(np.expm1(logs_of_groups[index])),
                **{key: float(np.expm1(value)) for key, value in _interval(logs[:, index]).items()},
                "minus_keep": None
                if index == keep
                else {
                    "log_ratio": float(logs_of_groups[index] - logs_of_groups[keep]),
                    **_interval(logs[:, index] - logs[:, keep]),
                },
            }
            for index, name in enumerate(GROUPS)
        },
    }


def spearman(left: np.ndarray, right: np.ndarray) -> float:
    """Rank correlation with average ranks for ties."""
    import pandas as pd

    ranks = pd.DataFrame({"left": left, "right": right}).rank()
    return float(ranks.left.corr(ranks.right))


def rank_correlations(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Spearman's rho row by row, both [draw category]; NaN where one side is constant."""
    from scipy import stats

    ranks = [stats.rankdata(side, axis=1) for side in (left, right)]
    ranks = [side - side.mean(1, keepdims=True) for side in ranks]
    norm = np.sqrt((ranks[0] ** 2).sum(1) * (ranks[1] ** 2).sum(1))
    return np.where(norm > 0, (ranks[0] * ranks[1]).sum(1) / np.where(norm > 0, norm, 1.0), np.nan)


def _sides(runs: Sequence[PlantedRun]) -> tuple[list, list]:
    return [(run, run.reference) for run in runs], [(run, run.treatment) for run in runs]


def _group_logs(runs: Sequence[PlantedRun]) -> np.ndarray:
    """Log ratio of pooled shares per group, 1/2 added to the counts."""
    totals = [
        sum(values.sum() for _, values in side) + rest
        for side, rest in zip(
            _sides(runs),
            (sum(run.rest_reference for run in runs), sum(run.rest_treatment for run in runs)),
            strict=True,
        )
    ]
    logs = []
    for name in GROUPS:
        reference, treatment = (
            sum(values[run.group == name].sum() for run, values in side) for side in _sides(runs)
        )
        logs.append(np.log((treatment + 0.5) / totals[1] * totals[0] / (reference + 0.5)))
    return np.array(logs)


def _redraw(counts: np.ndarray, rest: int, generator: np.random.Generator) -> np.ndarray:
    cells = np.append(counts, rest).astype(float)
    total = int(cells.sum())
    return generator.multinomial(total, cells / total) if total else cells.astype(int)


def _interval(values: Any) -> dict[str, float]:
    """95 % percentile interval of the values that are known; NaN without any."""
    known = np.asarray(values, dtype=float)
    known = known[~np.isnan(known)]
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (np.nan, np.nan)
    return {"ci_low": float(low), "ci_high": float(high)}


def correlation(
    points: Sequence[Mapping[str, Any]], with_what: str, *, draws: int = 2000
) -> dict[str, float | int]:
    """Spearman's rho of two changes over categories; 95 % percentile interval over resampled categories.

    Tasks and scores of one category share the latents' change, and every run meets the same copy of a log:
    they are no independent points. So each category is one point, the mean over its tasks, scores and runs.

    Points without either value are left out; `n` counts the categories of the others. rho is NaN for fewer
    than three categories or where one side is constant, the bounds below `MIN_CATEGORIES`.
    """
    left, right = _by_category(points, with_what)
    found = {"n": len(left), "rho": _rho(left, right)}
    if len(left) < MIN_CATEGORIES:
        return found | _interval([])
    generator = np.random.default_rng([0, 13])
    chosen = generator.integers(len(left), size=(draws, len(left)))
    return found | _interval(rank_correlations(left[chosen], right[chosen]))


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
