from __future__ import annotations

import math

import pandas as pd

from crossdiff.report import figures, style
from crossdiff.report.delta_rows import LIMIT, DeltaRow, delta_rows, log2_factor, ordered
from crossdiff.statistics.deltas import category_deltas
from crossdiff.statistics.significance import fisher_p_value

COLUMNS = [
    "level", "name", "parent", "count_reference", "total_reference", "count_treatment", "total_treatment",
    "share_reference", "share_treatment", "relative_change", "ci_low", "ci_high", "p_value", "q_value",
]  # fmt: skip


def frame() -> pd.DataFrame:
    rows = [
        ["class", "k", None, 100, 1000, 200, 1000, 0.1, 0.2, 1.0, 0.2, 3.0, 0.01, 0.01],
        ["category", "doubled", "k", 100, 1000, 200, 1000, 0.1, 0.2, 1.0, 0.2, 3.0, 0.01, 0.01],
        ["category", "unsure", "k", 10, 100, 5, 100, 0.1, 0.05, -0.5, -0.8, 0.2, 0.2, 0.4],
        ["category", "new", "k", 0, 100, 3, 100, 0.0, 0.03, math.inf, 0.1, math.inf, 0.2, 0.4],
        ["category", "absent", "k", 0, 100, 0, 100, 0.0, 0.0, math.nan, math.nan, math.nan, 1.0, 1.0],
        ["category", "<i>x</i>", "k", 4, 100, 4, 100, 0.04, 0.04, 0.0, -0.5, 1.0, 1.0, 1.0],
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def named(name: str) -> DeltaRow:
    return next(row for row in delta_rows(frame()) if row.name == name)


def test_a_doubled_share_is_one_step_of_the_axis() -> None:
    assert log2_factor(1.0) == 1
    assert log2_factor(-0.5) == -1
    assert log2_factor(-1.0) == -LIMIT
    assert math.isnan(log2_factor(None))


def test_a_bar_is_hollow_when_its_interval_holds_zero() -> None:
    bars = {trace.name: trace for trace in figures.changes(frame()).data}
    assert bars["more, clear of 0"].marker.color == style.MORE
    assert bars["less, may be 0"].marker.color == style.PAPER
    assert list(bars["less, may be 0"].x) == [-1]


def test_new_and_absent_categories_say_so_in_words() -> None:
    assert named("new").text == "new (3 vs 0)"
    assert named("absent").text == "none in either"
    assert named("unsure").sign == "interval holds 0"


def test_what_neither_pair_has_is_left_to_the_table() -> None:
    shown = figures.changes(frame()).layout.yaxis.ticktext
    assert "Absent" not in shown
    assert len(shown) == 5


def test_names_cannot_carry_markup() -> None:
    assert "&lt;i&gt;x&lt;/i&gt;" in figures.changes(frame()).layout.yaxis.ticktext


def test_the_planted_truth_is_a_diamond_in_the_same_unit() -> None:
    figure = figures.changes(frame(), planted={"doubled": 1.0, "unknown": 2.0})
    (diamonds,) = (trace for trace in figure.data if trace.name == "planted truth")
    assert list(diamonds.x) == [1]
    assert diamonds.y[0] == list(figure.layout.yaxis.ticktext).index("Doubled")


def test_categories_follow_their_class_from_more_to_less() -> None:
    names = [row.name for row in ordered(delta_rows(frame()))]
    assert names == ["k", "new", "doubled", "<i>x</i>", "unsure", "absent"]


def test_nothing_to_compare_is_a_figure_that_says_so() -> None:
    figure = figures.changes(frame().iloc[:0])
    assert figure.layout.annotations[0].text.startswith("No labelled exclusive latents")


def test_a_solid_bar_has_an_interval_and_a_test_that_exclude_no_change() -> None:
    """All tables of 1 to 5 of 60 against up to 10 of 50, their intervals those of the delta table."""
    disagree = 0
    for reference, treatment in ((a, b) for a in range(1, 6) for b in range(11)):
        labels = [["x"] * n + ["other"] * (total - n) for n, total in ((reference, 60), (treatment, 50))]
        frame = category_deltas(*labels, draws=50)
        (row,) = [row for row in delta_rows(frame) if row.name == "x"]
        p_value = fisher_p_value(reference, 60, treatment, 50)
        disagree += not row.holds_zero and p_value > 0.05
        assert row.clear == (not row.holds_zero and p_value <= 0.05)
        assert row.clear == (row.sign in ("more", "less"))
    assert disagree  # the case exists, and is drawn hollow
