"""The multiverse table on labels counted by hand."""

from __future__ import annotations

import json

import pytest

from crossdiff.statistics.multiverse import Choice, multiverse
from crossdiff.taxonomy.scheme import PaperTaxonomy

TAXONOMY = PaperTaxonomy().load()


def labels(**counts: int) -> list[str]:
    return [name for name, count in counts.items() for _ in range(count)]


def test_changes_counts_and_signs_by_hand() -> None:
    """Translation 2/10 -> 4/10 (+100 %), then 3/10 -> 3/10 (0), then 4/10 -> 2/10 (-50 %)."""
    choices = [
        Choice("headline", labels(translation=2, other=8), labels(translation=4, other=6)),
        Choice("second", labels(translation=3, other=7), labels(translation=3, other=7)),
        Choice("third", labels(translation=4, other=6), labels(translation=2, other=8)),
        Choice("fourth", labels(translation=1, other=9), labels(translation=3, mathematics=1, other=6)),
    ]
    found = multiverse(choices, TAXONOMY)
    json.dumps(found, allow_nan=False)
    row = found["names"].index("translation")
    assert found["choices"] == ["headline", "second", "third", "fourth"]
    assert found["changes"][row] == pytest.approx([1.0, 0.0, -0.5, 2.0])
    assert found["counts"][row] == [[2, 4], [3, 3], [4, 2], [1, 3]]
    assert found["sign"][row] == {"same": 2, "of": 4}
    group = found["names"].index("linguistic_multilingual")
    assert found["changes"][group] == found["changes"][row]
    new = found["names"].index("mathematics")
    assert found["changes"][new][:3] == [None, None, None]
    assert found["changes"][new][3] == "new"
    assert found["sign"][new] == {"same": 0, "of": 0}


def test_what_only_the_treatment_has_rises_however_large_its_total_is() -> None:
    """0 of 20 against 1 of 80: with 1/2 added to both the ratio would be 0.76, a fall."""
    choice = Choice("headline", labels(other=20), labels(mathematics=1, other=79))
    found = multiverse([choice, choice], TAXONOMY)
    row = found["names"].index("mathematics")
    assert found["changes"][row] == ["new", "new"]
    assert found["sign"][row] == {"same": 2, "of": 2}


def test_an_empty_side_has_no_change() -> None:
    found = multiverse([Choice("headline", [], labels(translation=1))], TAXONOMY)
    assert all(change is None for row in found["changes"] for change in row)
