from __future__ import annotations

from dataclasses import replace

from crossdiff.report.changed_categories import between, changed
from crossdiff.report.sources import Sources


def test_nothing_is_said_to_have_changed_where_nothing_is_claimed(sources: Sources) -> None:
    assert changed(sources) is None  # all q-values are 0.4
    assert sources.comparison is not None
    deltas = sources.comparison.deltas.assign(q_value=0.001)
    found = changed(replace(sources, comparison=replace(sources.comparison, deltas=deltas)))
    assert found is not None
    assert {side["kind"] for side in found["sides"]} <= {"more", "less"}
    assert sum(len(side["rows"]) for side in found["sides"]) >= 6


def test_intervals_are_whole_percents() -> None:
    assert between((-0.614, 4.609)) == "−61 to +461 %"
    assert between((float("nan"), 1.0)) == "no interval"
