"""People against the annotator on the same items: agreement at the level of categories and of classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crossdiff.statistics.agreement import Rating, agreement, confusion, precision_recall
from crossdiff.taxonomy.scheme import RESERVED, Taxonomy

VERSION = 1
Rated = Mapping[str, Rating]


def human_check(
    raters: Mapping[str, Rated], annotator: Rated, taxonomy: Taxonomy, *, seed: int = 0
) -> dict[str, Any]:
    """`raters` name -> item -> category or None; `annotator` item -> category.

    The sheet is balanced over the annotator's categories, so kappa and recall are those of a balanced set,
    not of the latents as they come; precision per category does not depend on that.
    """
    items = sorted(annotator)
    levels: dict[str, Any] = {}
    for level, names in (
        ("class", [*(group.name for group in taxonomy.classes), *RESERVED]),
        ("category", [*(category.name for category in taxonomy.categories), *RESERVED]),
    ):
        people = {
            name: [_at(level, own.get(item), taxonomy) for item in items] for name, own in raters.items()
        }
        said = [_at(level, annotator[item], taxonomy) for item in items]
        table = sum((confusion(own, said, names) for own in people.values()), start=confusion([], [], names))
        counts = table.to_numpy()
        used = [name for index, name in enumerate(names) if counts[index].any() or counts[:, index].any()]
        levels[level] = {
            **agreement(people, said, names, seed=seed),
            "precision_recall": precision_recall(table),
            "confusion": {"names": used, "counts": table.loc[used, used].to_numpy().tolist()},
        }
    unrated = {name: sum(own.get(item) is None for item in items) for name, own in raters.items()}
    return {"version": VERSION, "n_items": len(items), "unrated": unrated, "levels": levels}


def _at(level: str, category: Rating, taxonomy: Taxonomy) -> Rating:
    """The category itself or its class; `other` and `uninterpretable` stand for themselves."""
    if level == "category" or category is None or category in RESERVED:
        return category
    return taxonomy.parent(category)
