from __future__ import annotations

import math

import pytest

from crossdiff.report.words import change_text, duration, finite, number, readable, share, visible


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (0.328, "+32.8 %"),
        (-1.0, "−100.0 %"),
        (-0.00001, "0.0 %"),
        (15.0, "+1,500 %"),
        (math.nan, "unknown"),
        (None, "unknown"),
    ],
)
def test_changes_carry_their_sign(change: float | None, text: str) -> None:
    assert change_text(change) == text


def test_missing_figures_are_a_dash_and_never_zero() -> None:
    assert (number(None), number(math.nan), share(None), duration(None)) == ("–", "–", "–", "–")


def test_figures_are_short() -> None:
    assert (number(114688), number(0.93456), number(12345.6)) == ("114,688", "0.935", "12,346")
    assert (duration(3.24), duration(250), duration(7500)) == ("3.2 s", "4 min 10 s", "2 h 05 min")


def test_direction_marks_become_glyphs() -> None:
    assert visible("a\u202eb\u200b") == "a⟨RLO⟩b⟨ZWSP⟩"
    assert readable("harmful_request\u202e") == "Harmful request⟨RLO⟩"


def test_json_gets_no_infinity() -> None:
    assert finite({"a": [math.inf, 1.5], 2: math.nan}) == {"a": [None, 1.5], "2": None}
