"""Bounds of a change under refusals, worked by hand."""

from __future__ import annotations

import pytest

from crossdiff.statistics.deltas import category_deltas
from crossdiff.statistics.refusals import refusal_bounds


def table(n_reference: int, n_treatment: int):
    reference, treatment = (["x"] * n + ["other"] * (20 - n) for n in (n_reference, n_treatment))
    return category_deltas(reference, treatment)


def test_bounds_by_hand() -> None:
    """4 of 20 against 6 of 20, 2 and 5 refused: low (6/25) / (6/22) - 1, high (11/25) / (4/22) - 1."""
    rows = {row["name"]: row for row in refusal_bounds(table(4, 6), reference=2, treatment=5)}
    assert rows["x"]["low"] == pytest.approx((6 / 25) / (6 / 22) - 1)
    assert rows["x"]["high"] == pytest.approx((11 / 25) / (4 / 22) - 1)
    assert rows["x"]["low"] < 0.5 < rows["x"]["high"]


def test_without_refusals_there_is_nothing_to_bound() -> None:
    assert refusal_bounds(table(4, 6), reference=0, treatment=0) == []


def test_a_zero_reference_has_no_upper_bound() -> None:
    (row,) = [r for r in refusal_bounds(table(0, 6), reference=1, treatment=0) if r["name"] == "x"]
    assert (row["high"], row["high_text"]) == (None, "new (6 vs 0)")
    assert row["low"] == pytest.approx((6 / 20) / (1 / 21) - 1)


def test_all_refused_on_both_sides_is_bounded_by_the_refusals_alone() -> None:
    deltas = category_deltas([], ["x"])
    (row,) = [r for r in refusal_bounds(deltas, reference=3, treatment=0) if r["name"] == "x"]
    assert row["low"] == 0.0  # 3 of 3 against 1 of 1
    assert (row["high"], row["high_text"]) == (None, "new (1 vs 0)")


def test_a_category_that_is_new_either_way_says_so_at_both_ends() -> None:
    """0 against 5, 2 of the treatment's refused: new with 5 at least, and with 7 at most."""
    (row,) = [r for r in refusal_bounds(table(0, 5), reference=0, treatment=2) if r["name"] == "x"]
    assert (row["low_text"], row["high_text"]) == ("new (5 vs 0)", "new (7 vs 0)")
