from __future__ import annotations

import math

import pytest

from crossdiff.report.formatting import (
    between,
    change_text,
    duration,
    finite,
    number,
    readable,
    share,
    told,
    visible,
)


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


@pytest.mark.parametrize(
    ("value", "text"),
    [(999.4, "999"), (999.5, "1,000"), (999.7, "1,000"), (-999.9, "-1,000"), (-0.0, "0"), (0.0, "0")],
)
def test_a_figure_is_rounded_before_its_form_is_chosen(value: float, text: str) -> None:
    assert number(value) == text


def test_two_digits_need_no_exponent_either() -> None:
    assert (number(0.0312, 2), number(99.7, 2), number(150.0, 2)) == ("0.031", "100", "150")


def test_a_figure_in_a_sentence_is_unknown_or_a_number() -> None:
    assert (told(math.nan), told(None, ".0%"), told(math.inf)) == ("unknown", "unknown", "unknown")
    assert (told(-0.001, "+.0%"), told(0.002, "+.0%"), told(-0.0)) == ("0%", "0%", "0.00")
    assert (told(-0.25, "+.0%"), told(0.25, "+.0%"), told(1e-9, ".2g")) == ("−25%", "+25%", "1e-09")
    assert between(0.2, 0.451) == "0.20 to 0.45"
    assert between(math.nan, 0.4) == between(0.4, None) == "unknown"


def test_a_small_share_is_not_nothing() -> None:
    assert (share(0.0), share(36 / 114_688), share(0.0006), share(0.25)) == (
        "0.0 %", "< 0.1 %", "0.1 %", "25.0 %",
    )  # fmt: skip
    assert (share(-0.0001), share(-0.02)) == ("0.0 %", "−2.0 %")


def test_direction_marks_become_glyphs() -> None:
    assert visible("a\u202eb\u200b") == "a⟨RLO⟩b⟨ZWSP⟩"
    assert readable("harmful_request\u202e") == "Harmful request⟨RLO⟩"


def test_json_gets_no_infinity() -> None:
    assert finite({"a": [math.inf, 1.5], 2: math.nan}) == {"a": [None, 1.5], "2": None}
