"""The delta table: how the share of every class and category changes between two pairs' exclusive latents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossdiff.statistics.intervals import bootstrap_interval, log_ratio, score_interval
from crossdiff.statistics.significance import benjamini_hochberg, fisher_p_value, max_t_p_values
from crossdiff.taxonomy.scheme import RESERVED, PaperTaxonomy, Taxonomy

if TYPE_CHECKING:
    import pandas as pd

SMALL_SHARE = 0.05
"""Below this share of either pair the interval is Koopman's: the percentile bootstrap covers too little."""
COLUMNS = (
    "level", "name", "parent", "count_reference", "total_reference", "count_treatment", "total_treatment",
    "share_reference", "share_treatment", "relative_change", "ci_low", "ci_high", "p_value", "q_value",
)  # fmt: skip


@dataclass(frozen=True)
class Labels:
    """Labels of one pair's annotated latents, one per latent (the majority where there were votes).

    Votes are not resampled inside a latent: drawn labels already contain the annotator's doubt. Drawing votes
    too counts it twice and pulls every share towards the mean vote, away from the reported share
    (docs/annotation.md).
    """

    labels: Sequence[str]

    @property
    def total(self) -> int:
        """Annotated latents: the denominator of every share."""
        return len(self.labels)

    def counts(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Latents per name."""
        counted = Counter(self.labels)
        return np.array([counted[name] for name in names], dtype=np.int64)

    def draw(self, names: Sequence[str], *, draws: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """Bootstrap counts [draw name]: latents with replacement."""
        if not self.labels:
            return np.zeros((draws, len(names)), dtype=np.int64)
        counts = self.counts(names)
        shares = np.append(counts, self.total - counts.sum()) / self.total
        return generator.multinomial(self.total, shares, size=draws)[:, :-1]


def category_deltas(
    reference: Sequence[str],
    treatment: Sequence[str],
    *,
    taxonomy: Taxonomy | None = None,
    draws: int = 5000,
    seed: int = 0,
) -> pd.DataFrame:
    """The delta table of two lists of labels, one label per annotated latent.

    share = count / annotated latents of that pair, `other` and `uninterpretable` included in the total;
    relative_change = share_treatment / share_reference - 1: inf where only the reference count is 0
    (printed as `new (n vs 0)`), NaN where both are. Intervals are over latents; p is max-T over classes
    (then q = p) and Fisher's exact over categories (q: Benjamini-Hochberg).
    With a taxonomy every class and category has a row; without one only those that occur, with parents
    from the paper's taxonomy.
    """
    import pandas as pd

    sides = Labels(reference), Labels(treatment)
    rows = table_rows({label for side in sides for label in side.labels}, taxonomy)
    table = _Tables.build(sides, rows, draws=draws, generator=np.random.default_rng([seed, 5]))
    frame = pd.DataFrame([table.row(index) for index in range(len(rows))], columns=list(COLUMNS))
    family = (frame.level == "category") & ~frame.name.isin(RESERVED)
    frame.loc[family, "q_value"] = benjamini_hochberg(frame.loc[family, "p_value"].to_numpy(float))
    frame.loc[frame.level == "class", "q_value"] = frame.loc[frame.level == "class", "p_value"]
    return frame


class Row(NamedTuple):
    """A row of the table: a class is the sum of its `members`, a category has itself."""

    level: str
    name: str
    parent: str | None
    members: tuple[str, ...]


def table_rows(labels: set[str], taxonomy: Taxonomy | None) -> list[Row]:
    """Classes, then categories, of the table of these labels; ValueError for labels outside the taxonomy."""
    if any(not isinstance(label, str) or not label for label in labels):
        raise ValueError(
            "category_deltas got an empty or missing label; leave unanswered latents out and list them beside"
        )
    scheme = taxonomy or PaperTaxonomy().load()
    names = [category.name for category in scheme.categories]
    unknown = sorted(labels - set(names) - set(RESERVED))
    if taxonomy is not None and unknown:
        raise ValueError(
            f"label {unknown[0]!r} is not in taxonomy {taxonomy.name!r} (hash {taxonomy.hash}); "
            "the taxonomy was changed after assignment: annotate again, or give the one that was used"
        )
    if taxonomy is None:
        names = [name for name in names if name in labels]
    used = [name for name in RESERVED if taxonomy is not None or name in labels]
    classes = [
        Row("class", group.name, None, tuple(c.name for c in group.categories))
        for group in scheme.classes
        if any(category.name in names for category in group.categories)
    ]
    return [
        *classes,
        *(Row("category", name, scheme.parent(name), (name,)) for name in (*names, *unknown, *used)),
    ]


@dataclass(frozen=True)
class _Tables:
    """Counts and draws of all rows: the vectorised part of the delta table."""

    rows: list[Row]
    counts: tuple[NDArray[np.int64], NDArray[np.int64]]
    totals: tuple[int, int]
    intervals: NDArray[np.float64]
    class_p: dict[str, float]

    @classmethod
    def build(
        cls, sides: tuple[Labels, Labels], rows: list[Row], *, draws: int, generator: np.random.Generator
    ) -> _Tables:
        leaves = [row.name for row in rows if row.level == "category"]
        leaves += sorted({member for row in rows for member in row.members} - set(leaves))
        sums = np.array([[leaf in row.members for leaf in leaves] for row in rows], dtype=np.int64)
        sums = sums.reshape(len(rows), len(leaves))
        counts = sides[0].counts(leaves), sides[1].counts(leaves)
        totals = len(sides[0].labels), len(sides[1].labels)
        drawn = [side.draw(leaves, draws=draws, generator=generator) @ sums.T for side in sides]
        ratios = log_ratio(drawn[1], drawn[0], n_treatment=totals[1], n_reference=totals[0])
        in_class = sums[[row.level == "class" for row in rows]]
        families = [in_class @ side for side in counts]
        p_values = max_t_p_values(*families, totals=totals, draws=draws, generator=generator)
        class_rows = [row.name for row in rows if row.level == "class"]
        return cls(
            rows,
            (sums @ counts[0], sums @ counts[1]),
            totals,
            bootstrap_interval(ratios),
            dict(zip(class_rows, p_values.tolist(), strict=True)),
        )

    def row(self, index: int) -> list[object]:
        """One line of the delta table, in the order of `COLUMNS`."""
        row = self.rows[index]
        reference, treatment = int(self.counts[0][index]), int(self.counts[1][index])
        n_reference, n_treatment = self.totals
        shares = [
            count / total if total else np.nan
            for count, total in ((reference, n_reference), (treatment, n_treatment))
        ]
        low, high = self._interval(index, reference, treatment, min(shares))
        p_value = (
            self.class_p[row.name]
            if row.level == "class"
            else fisher_p_value(reference, n_reference, treatment, n_treatment)
        )
        return [
            row.level, row.name, row.parent, reference, n_reference, treatment, n_treatment,
            *shares, relative_change(*shares), low, high, p_value, np.nan,
        ]  # fmt: skip

    def _interval(self, index: int, reference: int, treatment: int, share: float) -> tuple[float, float]:
        """Bootstrap for shares from `SMALL_SHARE`, score interval below; NaN where nothing was counted."""
        n_reference, n_treatment = self.totals
        if min(self.totals) == 0 or reference + treatment == 0:
            return np.nan, np.nan
        if share >= SMALL_SHARE:
            low, high = self.intervals[:, index]
            return float(low), float(high)
        low, high = score_interval(treatment, n_treatment, reference, n_reference)
        return low - 1, high - 1


def relative_change(share_reference: float, share_treatment: float) -> float:
    """share_treatment / share_reference - 1; inf where only the reference is 0, NaN where both are."""
    if np.isnan(share_reference) or np.isnan(share_treatment):
        return float("nan")
    if share_reference == 0:
        return float("nan") if share_treatment == 0 else float("inf")
    return share_treatment / share_reference - 1


def change_text(count_reference: int, count_treatment: int, change: float) -> str:
    """Text of a change: `+32.8 % (19 vs 18)`, `new (4 vs 0)`, `none (0 vs 0)`."""
    counts = f"({count_treatment} vs {count_reference})"
    if np.isposinf(change):
        return f"new {counts}"
    if np.isnan(change):
        return f"none {counts}"
    return f"{round(100 * change, 1) + 0.0:+.1f} % {counts}"
