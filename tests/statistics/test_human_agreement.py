"""People against the annotator on the same items, counted by hand."""

from __future__ import annotations

import json

import pytest

from crossdiff.report.human_check import agreement_lines, block
from crossdiff.statistics.human_agreement import human_check
from crossdiff.taxonomy.scheme import PaperTaxonomy

TAXONOMY = PaperTaxonomy().load()
SAID = {f"i{n}": name for n, name in enumerate(["translation"] * 5 + ["mathematics"] * 4 + ["other"])}


def test_class_and_category_level_by_hand() -> None:
    """Eight of ten agree; one miss stays inside the class, so nine of ten agree at class level."""
    person = dict(SAID) | {"i0": "grammar_correction", "i9": "mathematics"}
    found = human_check({"ann": person}, SAID, TAXONOMY)
    json.dumps(found, allow_nan=False)
    category, group = found["levels"]["category"], found["levels"]["class"]
    rows = {row["name"]: row for row in category["precision_recall"]}
    assert rows["translation"]["precision"]["value"] == pytest.approx(4 / 5)
    assert rows["mathematics"]["recall"]["value"] == pytest.approx(4 / 5)
    assert rows["grammar_correction"]["precision"] is None
    names = group["confusion"]["names"]
    assert names == ["linguistic_multilingual", "technical", "other"]
    assert group["confusion"]["counts"] == [[5, 0, 0], [0, 4, 1], [0, 0, 0]]
    expected = (0.9 - (25 + 20) / 100) / (1 - 0.45)
    assert group["raters"]["ann"]["kappa"]["value"] == pytest.approx(expected)


def test_unrated_items_are_counted_and_left_out() -> None:
    person = dict(SAID) | {"i0": None, "i1": None}
    found = human_check({"ann": person, "bo": dict(SAID)}, SAID, TAXONOMY)
    assert found["unrated"] == {"ann": 2, "bo": 0}
    assert found["levels"]["category"]["raters"]["ann"]["n"] == 8
    assert found["levels"]["category"]["raters"]["ann"]["kappa"]["value"] == pytest.approx(1)
    assert "alpha_between_people" in found["levels"]["class"]


def test_it_is_told_in_lines_and_shown_in_tables() -> None:
    found = human_check({"ann": dict(SAID)}, SAID, TAXONOMY) | {"unit": "document"}
    text = "\n".join(agreement_lines(found))
    for word in ("alpha", "kappa 1.00", "AC1 1.00", "precision", "recall", "confusion", "translation"):
        assert word in text
    shown = block(found)
    assert shown is not None
    assert len(shown["agreement"].rows) == 4
    assert block(None) is None
