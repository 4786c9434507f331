"""How often topics of two pairs fall into each category, beside planted changes and those of crosscoders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossdiff.io.tables import rows_of, where
from crossdiff.report.formatting import told
from crossdiff.report.runs import RunProducts
from crossdiff.statistics.pooling import spearman
from crossdiff.statistics.verdict import claims
from crossdiff.studies.changes import CategoryCounts
from crossdiff.taxonomy.scheme import RESERVED, Taxonomy

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class TopicChanges:
    """Log changes per category, NaN with nothing to compare; `called`: by crosscoders, after correction."""

    counts: CategoryCounts
    topics: Numbers
    planted: Numbers | None = None
    crosscoders: Numbers | None = None
    called: frozenset[str] = frozenset()

    @property
    def names(self) -> tuple[str, ...]:
        """All categories of the taxonomy."""
        return self.counts.names

    def seen(self) -> dict[str, list[str]]:
        """The categories that crosscoders call: topics with the same sign, the other sign, or no change."""
        found: dict[str, list[str]] = {"same": [], "other": [], "nothing": []}
        for place, name in enumerate(self.names):
            if name in self.called and self.crosscoders is not None:
                product = np.sign(self.topics[place]) * np.sign(self.crosscoders[place])
                found["same" if product > 0 else "other" if product < 0 else "nothing"].append(name)
        return found

    def numbers(self) -> dict[str, Any]:
        """For summary.json."""
        return {
            "categories": [
                {"name": name, "reference": int(pair[0]), "treatment": int(pair[1]), **self._row(place)}
                for place, (name, pair) in enumerate(zip(self.names, self.counts.counts[0].T, strict=True))
            ],
            "n_topics": self.counts.totals[0].tolist(),
            "spearman": {
                "topics_planted": _rho(self.topics, self.planted),
                "crosscoders_planted": _rho(self.crosscoders, self.planted),
                "topics_crosscoders": _rho(self.topics, self.crosscoders),
            },
            "called_by_crosscoders": self.seen() if self.crosscoders is not None else None,
            "right_signs": {
                "topics": _right(self.topics, self.planted),
                "crosscoders": _right(self.crosscoders, self.planted),
            },
        }

    def _row(self, place: int) -> dict[str, float | None]:
        columns = {"topics": self.topics, "planted": self.planted, "crosscoders": self.crosscoders}
        return {name: None if each is None else float(each[place]) for name, each in columns.items()}

    def sentence(self) -> str:
        """What the topics say of two pairs, and whether crosscoders saw more."""
        numbers = self.numbers()
        first, second = numbers["n_topics"]
        known = int((~np.isnan(self.topics)).sum())
        text = f"Topics of the two pairs ({first} and {second}) fall into {known} of {len(self.names)}"
        text += " categories"
        if self.planted is not None:
            rho, right = numbers["spearman"]["topics_planted"], numbers["right_signs"]["topics"]
            text += (
                f"; their changes follow the planted ones with rho {told(rho)} ({_told(right)} signs right)"
            )
        if self.crosscoders is None:
            return f"{text}."
        if self.planted is not None:
            rho, right = numbers["spearman"]["crosscoders_planted"], numbers["right_signs"]["crosscoders"]
            text += f", those of the crosscoders with rho {told(rho)} ({_told(right)})"
        seen = self.seen()
        missed = len(seen["other"]) + len(seen["nothing"])
        return (
            f"{text}. Of {len(self.called & set(self.names))} categories that the crosscoders call changed, "
            f"the topics have {len(seen['same'])} with the same sign: {missed} were seen by the crosscoders "
            "and not by the topics."
        )


def _told(right: tuple[int, int] | None) -> str:
    return "unknown" if right is None else f"{right[0]} of {right[1]}"


def _rho(left: Numbers | None, right: Numbers | None) -> float | None:
    """Spearman's rho over the categories that both have; None for fewer than three or a constant side."""
    if left is None or right is None:
        return None
    both = ~np.isnan(left) & ~np.isnan(right)
    if both.sum() < 3:
        return None
    rho = spearman(left[both], right[both])
    return None if np.isnan(rho) else rho


def _right(found: Numbers | None, planted: Numbers | None) -> tuple[int, int] | None:
    """Categories whose sign is the planted one, of those with a planted change."""
    if found is None or planted is None:
        return None
    changed = np.abs(planted) > 1e-9
    return int((np.sign(found) == np.sign(planted))[changed].sum()), int(changed.sum())


def compared(
    labels: tuple[Sequence[str], Sequence[str]],
    taxonomy: Taxonomy,
    *,
    planted: Sequence[Mapping[str, Any]] | None = None,
    beside: RunProducts | None = None,
) -> TopicChanges:
    """Of the topics' labels of the reference and the treatment; `beside` has deltas of the same taxonomy."""
    names = tuple(category.name for category in taxonomy.categories if category.name not in RESERVED)
    counted = [Counter(side) for side in labels]
    counts = np.array([[[side[name] for name in names] for side in counted]], dtype=np.int64)
    rest = np.array([[len(side) for side in labels]], dtype=np.int64) - counts.sum(axis=2)
    mine = CategoryCounts(names, counts, rest)
    truth = (
        None if planted is None else _of_names(names, {str(p["name"]): float(p["change"]) for p in planted})
    )
    if beside is None:
        return TopicChanges(mine, mine.log_changes()[0], truth)
    theirs = CategoryCounts.of([beside])
    if set(theirs.names) != set(names):
        raise ValueError(
            f"{beside.folder} was labelled with another taxonomy, so its categories cannot stand beside "
            "these; give the same taxonomy to both"
        )
    changes = dict(zip(theirs.names, theirs.log_changes()[0].tolist(), strict=True))
    called = frozenset(str(row.name) for row in rows_of(where(claims(beside.deltas()), level="category")))
    return TopicChanges(mine, mine.log_changes()[0], truth, _of_names(names, changes), called)


def _of_names(names: Sequence[str], found: Mapping[str, float]) -> Numbers:
    return np.array([found.get(name, np.nan) for name in names])
