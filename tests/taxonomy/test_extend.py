"""An extension adds, never changes, and says when there is nothing to add."""

from __future__ import annotations

import pytest

from crossdiff.taxonomy.extend import extended
from crossdiff.taxonomy.scheme import PaperTaxonomy

TAXONOMY = PaperTaxonomy().load()


def proposed(*names: str) -> dict:
    categories = [
        {"name": name, "title": name, "definition": f"On {name}.", "cues": [name]} for name in names
    ]
    return {"classes": [{"name": "x", "title": "X", "categories": categories}]}


def test_new_categories_come_in_a_class_of_their_own_up_to_the_limit() -> None:
    found = extended(TAXONOMY, proposed("translation", "gardens", "other", "trains", "ships"), n_new=2)
    assert [category.name for category in found.classes[-1].categories] == ["gardens", "trains"]
    assert found.classes[:-1] == TAXONOMY.classes
    assert found.hash != TAXONOMY.hash
    again = extended(found, proposed("ships"), n_new=2)
    assert len({group.name for group in again.classes}) == len(again.classes)


def test_nothing_new_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing to extend"):
        extended(TAXONOMY, proposed("translation", "uninterpretable"), n_new=2)
