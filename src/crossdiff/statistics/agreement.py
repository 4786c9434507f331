"""Agreement of raters about categories: alpha, kappa, AC1 with intervals; precision and recall per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from crossdiff.taxonomy.scheme import RESERVED, Taxonomy

if TYPE_CHECKING:
    import pandas as pd

Weights = NDArray[np.float64]
Rating = str | None
Rated = Mapping[str, Rating]
"""Item -> category; None for an unrated item."""
VERSION = 1
"""Version of the record of `human_check`."""


@dataclass(frozen=True)
class Ratings:
    """`counts` [item category]: how many raters put the item there; a missing rating is not counted."""

    counts: NDArray[np.float64]

    @classmethod
    def of(cls, raters: Sequence[Sequence[Rating]], names: Sequence[str]) -> Ratings:
        """Count one sequence per rater (None = not rated), all over the same items and the scale `names`."""
        place = {name: index for index, name in enumerate(names)}
        counts = np.zeros((len(raters[0]) if raters else 0, len(names)))
        for rater in raters:
            for item, rating in enumerate(rater):
                if rating is not None:
                    counts[item, place[rating]] += 1
        return cls(counts)

    @property
    def raters(self) -> NDArray[np.float64]:
        """Ratings per item."""
        return self.counts.sum(1)


def krippendorff_alpha(ratings: Ratings, weights: Weights | None = None) -> Any:
    """Nominal alpha = (A_o - A_e) / (1 - A_e) over items with two or more ratings (Krippendorff 2011).

    A_o = sum_i sum_c r_ic (r_ic - 1) / (m_i - 1) / n and A_e = sum_c n_c (n_c - 1) / (n (n - 1)), with r_ic
    raters of item i in category c, m_i raters of it, n_c = sum_i r_ic, n = sum_c n_c. NaN where undefined
    (no such item, or one category only). `weights` [draw item] count items more than once.
    """
    w, counts, m = _pairable(ratings, weights)
    agree = (counts * (counts - 1)).sum(1) / np.maximum(m - 1, 1)
    totals = w @ counts
    n = totals.sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        observed = w @ agree / n
        expected = (totals * (totals - 1)).sum(-1) / (n * (n - 1))
        alpha = np.where(expected < 1, (observed - expected) / (1 - expected), np.nan)
    return _scalar(alpha, weights)


def gwet_ac1(ratings: Ratings, weights: Weights | None = None) -> Any:
    """AC1 = (A_o - A_e) / (1 - A_e), A_e = sum_c pi_c (1 - pi_c) / (K - 1) (Gwet 2008).

    A_o is the mean over items with two or more ratings of the share of agreeing pairs of raters; pi_c is the
    mean share of category c over all items with a rating, those with one included (Gwet 2014, section 2.4);
    K is the number of categories on the scale, chosen or not.
    """
    w, counts, m = _pairable(ratings, weights)
    rated = (np.ones(len(m)) if weights is None else weights) * (m >= 1)
    agree = (counts * (counts - 1)).sum(1) / np.maximum(m * (m - 1), 1)
    shares = counts / np.maximum(m, 1)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        size = w.sum(-1)
        observed = w @ agree / size
        pi = rated @ shares / rated.sum(-1)[..., None]
        expected = (pi * (1 - pi)).sum(-1) / (counts.shape[1] - 1)
        ac1 = (observed - expected) / (1 - expected)
    return _scalar(ac1, weights)


def cohen_kappa(
    first: Sequence[Rating], second: Sequence[Rating], names: Sequence[str], weights: Weights | None = None
) -> Any:
    """kappa = (p_o - p_e) / (1 - p_e) of two raters over the items both rated (Cohen 1960), else NaN."""
    both = np.array([a is not None and b is not None for a, b in zip(first, second, strict=True)], dtype=bool)
    w = (np.ones(len(both)) if weights is None else weights) * both
    one, two = Ratings.of([first], names).counts, Ratings.of([second], names).counts
    with np.errstate(invalid="ignore", divide="ignore"):
        size = w.sum(-1)
        observed = w @ (one * two).sum(1) / size
        expected = ((w @ one) * (w @ two)).sum(-1) / size**2
        kappa = np.where(expected < 1, (observed - expected) / (1 - expected), np.nan)
    return _scalar(kappa, weights)


def _pairable(ratings: Ratings, weights: Weights | None) -> tuple[Weights, NDArray, NDArray]:
    m = ratings.raters
    w = (np.ones(len(m)) if weights is None else weights) * (m >= 2)
    return w, ratings.counts, m


def _scalar(value: Any, weights: Weights | None) -> Any:
    return float(value) if weights is None else value


def agreement(
    raters: Mapping[str, Sequence[Rating]], annotator: Sequence[Rating], names: Sequence[str],
    *, draws: int = 2000, seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Alpha over all raters and the annotator; kappa and AC1 of every rater with the annotator.

    Intervals are 95 % percentile intervals of items drawn with replacement; `n` counts items with both.
    """
    n_items = len(annotator)
    generator = np.random.default_rng([seed, 9])
    drawn = generator.multinomial(n_items, np.full(n_items, 1 / max(n_items, 1)), size=draws).astype(float)
    everyone = Ratings.of([*raters.values(), annotator], names)
    figures: dict[str, Any] = {
        "n_items": n_items,
        "alpha": _with_interval(krippendorff_alpha(everyone), krippendorff_alpha(everyone, drawn)),
        "raters": {},
    }
    if len(raters) > 1:
        people = Ratings.of(list(raters.values()), names)
        values = krippendorff_alpha(people, drawn)
        figures["alpha_between_people"] = _with_interval(krippendorff_alpha(people), values)
    for name, labels in raters.items():
        pair = Ratings.of([labels, annotator], names)
        kappa = cohen_kappa(labels, annotator, names), cohen_kappa(labels, annotator, names, drawn)
        figures["raters"][name] = {
            "n": int((pair.raters >= 2).sum()),
            "kappa": _with_interval(*kappa),
            "ac1": _with_interval(gwet_ac1(pair), gwet_ac1(pair, drawn)),
        }
    return figures


def _with_interval(value: float, drawn: NDArray[np.float64]) -> dict[str, float | None]:
    known = drawn[~np.isnan(drawn)]
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (np.nan, np.nan)
    numbers = {"value": value, "ci_low": float(low), "ci_high": float(high)}
    return {name: None if np.isnan(number) else number for name, number in numbers.items()}


def confusion(truth: Sequence[Rating], said: Sequence[Rating], names: Sequence[str]) -> pd.DataFrame:
    """Counts [people's category, annotator's category]; unrated items are left out."""
    import pandas as pd

    table = pd.DataFrame(0, index=list(names), columns=list(names))
    for true_label, other in zip(truth, said, strict=True):
        if true_label is not None and other is not None:
            table.loc[true_label, other] += 1
    return table


def precision_recall(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Per category: precision = agreed / answers of the annotator, recall = agreed / answers of people.

    Each has counts and a 95 % Wilson interval (Wilson 1927); None without answers.
    """
    rows = []
    counts = table.to_numpy(dtype=int)
    for index, name in enumerate(table.index):
        agreed, said = int(counts[index, index]), int(counts[:, index].sum())
        meant = int(counts[index].sum())
        if said or meant:
            rows.append(
                {"name": name, "agreed": agreed, "annotator": said, "people": meant}
                | {"precision": _share(agreed, said), "recall": _share(agreed, meant)}
            )
    return rows


def _share(count: int, size: int) -> dict[str, float] | None:
    if size == 0:
        return None
    interval = stats.binomtest(count, size).proportion_ci(method="wilson")
    return {"value": count / size, "ci_low": float(interval.low), "ci_high": float(interval.high)}


def human_check(
    raters: Mapping[str, Rated], annotator: Rated, taxonomy: Taxonomy, *, seed: int = 0
) -> dict[str, Any]:
    """`raters` name -> item -> category or None; `annotator` item -> category.

    The sheet is balanced over the annotator's categories, so kappa and recall are those of a balanced set,
    not of all latents; precision per category does not depend on the balance.
    """
    items = sorted(annotator)
    levels: dict[str, Any] = {}
    for level, names in (
        ("class", [*(group.name for group in taxonomy.classes), *RESERVED]),
        ("category", [*(category.name for category in taxonomy.categories), *RESERVED]),
    ):
        people = {
            name: [_at(level, labels.get(item), taxonomy) for item in items]
            for name, labels in raters.items()
        }
        said = [_at(level, annotator[item], taxonomy) for item in items]
        table = sum(
            (confusion(labels, said, names) for labels in people.values()), start=confusion([], [], names)
        )
        counts = table.to_numpy()
        used = [name for index, name in enumerate(names) if counts[index].any() or counts[:, index].any()]
        levels[level] = {
            **agreement(people, said, names, seed=seed),
            "precision_recall": precision_recall(table),
            "confusion": {"names": used, "counts": table.loc[used, used].to_numpy().tolist()},
        }
    unrated = {name: sum(labels.get(item) is None for item in items) for name, labels in raters.items()}
    return {"version": VERSION, "n_items": len(items), "unrated": unrated, "levels": levels}


def _at(level: str, category: Rating, taxonomy: Taxonomy) -> Rating:
    """The category or its class; `other` and `uninterpretable` stay."""
    if level == "category" or category is None or category in RESERVED:
        return category
    return taxonomy.parent(category)
