"""Figures of several runs: points and means per pair, signs to the right and left."""

from crossdiff.report.delta_rows import SignStability
from crossdiff.report.figures.curves import over_setting, signs


def test_lines_join_the_means_and_missing_values_stay_out() -> None:
    panels = {"L0": {"pt_it": [20.0, 30.0, None, 40.0]}}
    figure = over_setting(["1", "1", "2", "2"], names=["a", "b", "c", "d"], panels=panels)
    points, means = figure.data
    assert (list(points.x), list(points.y), list(points.text)) == (
        ["1", "1", "2"], [20, 30, 40], ["a", "b", "d"],
    )  # fmt: skip
    assert (list(means.x), list(means.y)) == (["1", "2"], [25, 40])


def test_the_bars_of_a_category_add_up_to_its_signed_runs() -> None:
    found = SignStability(more=3, less=2, clear_more=1, clear_less=2, unknown=1)
    figure = signs({"code_generation": found})
    lengths = {bar.name: bar.x[0] for bar in figure.data}
    assert lengths == {
        "less, interval clear of 0": -2, "less, interval holds 0": 0,
        "more, interval clear of 0": 1, "more, interval holds 0": 2,
    }  # fmt: skip
    assert figure.data[0].y[0] == "Code generation"
