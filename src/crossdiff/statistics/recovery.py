"""Recovered change against a planted truth: rank correlation over categories and pooled change of groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from crossdiff.statistics.deltas import Labels, relative_change
from crossdiff.statistics.intervals import log_ratio
from crossdiff.statistics.pooling import rank_correlations
from crossdiff.taxonomy.scheme import RESERVED

if TYPE_CHECKING:
    import pandas as pd

GROUPS = ("gain", "loss", "keep")
Planted = Sequence[Mapping[str, Any]]


def recovery(
    planted: Planted, reference: Labels, treatment: Labels, *, draws: int, seed: int
) -> dict[str, Any]:
    """Recovered and planted change per category, Spearman's rho with interval, and the groups.

    `planted` holds {name, group, change}; both changes are relative changes of a share. Several seeds
    are pooled by giving the concatenated labels. A recovered change is null where neither pair has the
    category; where only the reference lacks it, 1/2 is added to both counts (`added_half`).
    """
    names = [str(entry["name"]) for entry in planted]
    generator = np.random.default_rng([seed, 7])
    counts = reference.counts(names), treatment.counts(names)
    drawn = [side.draw(names, draws=draws, generator=generator) for side in (reference, treatment)]
    totals = reference.total, treatment.total
    return {
        "recovered": [
            _recovered(entry, int(counts[0][index]), int(counts[1][index]), totals)
            for index, entry in enumerate(planted)
        ],
        "planted": [
            {"name": entry["name"], "group": entry["group"], "change": entry["change"]} for entry in planted
        ],
        "spearman": _spearman(planted, counts, totals, draws, seed),
        "groups": _groups(planted, counts, drawn, totals),
    }


def against_represented(
    represented: Sequence[Mapping[str, Any]], deltas: pd.DataFrame, *, draws: int, seed: int
) -> dict[str, Any]:
    """The delta table against each category's represented change (organisms/represented.py).

    `represented` holds {name, group, change}; categories whose change is None are left out and counted.
    `n_held` counts the categories whose 95 % interval holds the represented change, of the `n_with_interval`
    that have both; `n_clear_right` counts the intervals on its side of 0, of the `n_clear` without 0.
    """
    by_name = deltas[deltas.level == "category"].set_index("name")
    known = [row for row in represented if row["change"] is not None and row["name"] in by_name.index]
    rows = by_name.loc[[row["name"] for row in known]]
    truth = np.array([float(row["change"]) for row in known])
    low, high = rows.ci_low.to_numpy(float), rows.ci_high.to_numpy(float)
    both = ~np.isnan(low) & ~np.isnan(high)
    clear = both & ((low > 0) | (high < 0))
    counts = rows.count_reference.to_numpy(int), rows.count_treatment.to_numpy(int)
    n_reference, n_treatment = (deltas[f"total_{side}"].to_numpy(int) for side in ("reference", "treatment"))
    totals = int(n_reference.max(initial=0)), int(n_treatment.max(initial=0))
    return {
        "represented": [
            {"name": row["name"], "group": row["group"], "change": row["change"]} for row in represented
        ],
        "against_represented": {
            "spearman": _spearman(known, counts, totals, draws, seed),
            "n_without_change": len(represented) - len(known),
            "n_with_interval": int(both.sum()),
            "n_held": int((both & (low <= truth) & (truth <= high)).sum()),
            "n_clear": int(clear.sum()),
            "n_clear_right": int((clear & (np.where(low > 0, 1, -1) == np.sign(truth))).sum()),
        },
    }


def _recovered(
    entry: Mapping[str, Any], count_reference: int, count_treatment: int, totals: tuple[int, int]
) -> dict[str, Any]:
    new = count_reference == 0 and count_treatment > 0 and min(totals) > 0
    if min(totals) == 0 or count_reference + count_treatment == 0:
        change = None
    elif new:
        change = float(np.expm1(_ratio(np.array(count_treatment), np.array(0), totals)))
    else:
        change = relative_change(count_reference / totals[0], count_treatment / totals[1])
    return {
        "name": entry["name"],
        "group": entry["group"],
        "change": change,
        "count_reference": count_reference,
        "count_treatment": count_treatment,
        "added_half": new,
    }


def _ratio(treatment: NDArray, reference: NDArray, totals: tuple[int, int]) -> NDArray[np.float64]:
    return log_ratio(treatment, reference, n_treatment=totals[1], n_reference=totals[0])


def _spearman(planted: Planted, counts: Sequence[NDArray], totals: tuple[int, int], draws: int, seed: int):
    """Rank correlation over the categories that occur, on log ratios + 1/2; the interval is over categories.

    Percentiles over resampled categories, as in `pooling`. Resampled latents would not do: their counts
    contain the noise of the observed ones twice, which pulls every draw below rho.
    """
    change = np.array([float(entry["change"]) for entry in planted])
    seen = (counts[0] + counts[1]) > 0
    n_categories = int(seen.sum())
    nothing = {"rho": None, "ci_low": None, "ci_high": None, "p_value": None, "n_categories": n_categories}
    if min(totals) == 0 or n_categories < 3:
        return nothing
    truth, observed = change[seen], _ratio(counts[1], counts[0], totals)[seen]
    if np.ptp(truth) == 0 or np.ptp(observed) == 0:
        return nothing
    result = stats.spearmanr(truth, observed)
    chosen = np.random.default_rng([seed, 8]).integers(n_categories, size=(draws, n_categories))
    low, high = np.nanpercentile(rank_correlations(truth[chosen], observed[chosen]), [2.5, 97.5])
    return {
        "rho": _number(result.statistic),  # type: ignore[attr-defined]
        "ci_low": _number(low),
        "ci_high": _number(high),
        "p_value": _number(result.pvalue),  # type: ignore[attr-defined]
        "n_categories": n_categories,
    }


def _groups(planted: Planted, counts: Sequence[NDArray], drawn: Sequence[NDArray], totals: tuple[int, int]):
    """Pooled change per group with interval, and each group's log-ratio distance to `keep`."""
    groups: dict[str, dict[str, Any]] = {}
    logs: dict[str, tuple[float, NDArray]] = {}
    for group in GROUPS:
        member = np.array([entry["group"] == group for entry in planted], dtype=bool)
        reference, treatment = int(counts[0][member].sum()), int(counts[1][member].sum())
        groups[group] = {
            "count_reference": reference,
            "count_treatment": treatment,
            "planted_change": _planted_change(planted, group),
            "change": None,
            "ci_low": None,
            "ci_high": None,
            "minus_keep": None,
        }
        if min(totals) == 0 or reference + treatment == 0:
            continue
        point = float(_ratio(np.array(treatment), np.array(reference), totals))
        spread = _ratio(drawn[1][:, member].sum(1), drawn[0][:, member].sum(1), totals)
        logs[group] = point, spread
        low, high = np.expm1(np.percentile(spread, [2.5, 97.5]))
        change = (
            relative_change(reference / totals[0], treatment / totals[1]) if reference else np.expm1(point)
        )
        groups[group] |= {"change": _number(change), "ci_low": _number(low), "ci_high": _number(high)}
    for group in set(logs) - {"keep"} if "keep" in logs else ():
        spread = logs[group][1] - logs["keep"][1]
        low, high = np.percentile(spread, [2.5, 97.5])
        difference = logs[group][0] - logs["keep"][0]
        groups[group]["minus_keep"] = {
            "log_ratio": _number(difference), "ci_low": _number(low), "ci_high": _number(high)
        }  # fmt: skip
    return groups


def _planted_change(planted: Planted, group: str) -> float | None:
    """Change of the group's pooled share; None where the truth has no shares or the reference has none."""
    shares = [
        sum(float(entry[name]) for entry in planted if entry["group"] == group)
        for name in ("share_reference", "share_treatment")
        if all(name in entry for entry in planted)
    ]
    if len(shares) < 2:
        return None
    return _number(relative_change(shares[0], shares[1]))


def _number(value: Any) -> float | None:
    """A finite float, else None: JSON has no NaN."""
    return float(value) if np.isfinite(value) else None


def label_check(
    rows: Sequence[Mapping[str, Any]],
    examples: Mapping[str, pd.DataFrame],
    document_categories: Mapping[str, str],
) -> dict[str, Any]:
    """The share of latents whose category is that of their documents.

    Figures over all exclusive latents, over those of the tuned models, and per pair. The truth is joined
    after assignment, and nothing that labels latents may read it.

    Where drifted latents were annotated, over these too, and over the shared controls beside them.

    labelled = has a category, not `other`, `uninterpretable` or no answer; right = that category dominates
    the latent's top documents (ties all count). `rows` are annotations, `examples` each pair's table of
    examples.
    """
    dominating = {
        (pair, int(str(latent))): _dominating(part["document_id"], document_categories)
        for pair, table in examples.items()
        for latent, part in table[(table.subset == "explain") & (table.source == "top")].groupby("latent")
    }
    exclusive = [row for row in rows if row["role"].startswith("exclusive")]
    tuned = [row for row in exclusive if row["role"] == "exclusive_tuned"]
    groups = {"exclusive": exclusive, "exclusive_tuned": tuned}
    groups |= {pair: [row for row in tuned if row["pair"] == pair] for pair in examples}
    if any(row["role"] == "drifted" for row in rows):
        shared = ("drifted", "control_shared")
        groups |= {role: [row for row in rows if row["role"] == role] for role in shared}
    return {name: _figures(part, dominating) for name, part in groups.items()}


def _dominating(documents: Any, document_categories: Mapping[str, str]) -> set[str]:
    counts = Counter(document_categories[name] for name in documents if name in document_categories)
    most = max(counts.values(), default=0)
    return {name for name, count in counts.items() if count == most}


def _figures(
    rows: Sequence[Mapping[str, Any]], dominating: Mapping[tuple[str, int], set[str]]
) -> dict[str, Any]:
    labelled = [row for row in rows if row["category"] not in (None, *RESERVED)]
    right = sum(row["category"] in dominating.get((row["pair"], row["latent"]), ()) for row in labelled)
    return {
        "n": len(rows),
        "n_labelled": len(labelled),
        "n_right": right,
        "share_labelled": len(labelled) / len(rows) if rows else None,
        "share_right": right / len(labelled) if labelled else None,
    }
