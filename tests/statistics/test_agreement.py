"""Agreement statistics against numbers worked by hand or published."""

from __future__ import annotations

import numpy as np
import pytest

from crossdiff.statistics.agreement import (
    Ratings,
    agreement,
    cohen_kappa,
    confusion,
    gwet_ac1,
    krippendorff_alpha,
    precision_recall,
)


def of(text: str) -> list[str | None]:
    return [None if word == "." else word for word in text.split()]


PUBLISHED = [
    of("1 2 3 3 2 1 4 1 2 . . ."),
    of("1 2 3 3 2 2 4 1 2 5 . 3"),
    of(". 3 3 3 2 3 4 2 2 5 1 ."),
    of("1 2 3 3 2 4 4 1 2 5 1 ."),
]
"""Krippendorff 2011, "Computing Krippendorff's alpha-reliability", section C: nominal alpha 0.743."""


def two_by_two() -> tuple[list[str | None], list[str | None]]:
    """20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no."""
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    return list(first), list(second)


def test_alpha_is_the_published_one() -> None:
    assert krippendorff_alpha(Ratings.of(PUBLISHED, list("12345"))) == pytest.approx(0.743, abs=5e-4)


def test_kappa_by_hand() -> None:
    """p_o = 35/50 = 0.7; p_e = 25/50 * 30/50 + 25/50 * 20/50 = 0.5; kappa = 0.2/0.5."""
    assert cohen_kappa(*two_by_two(), ["yes", "no"]) == pytest.approx(0.4)


def test_ac1_by_hand() -> None:
    """pi = (0.55, 0.45); A_e = 2 * 0.55 * 0.45 / 1 = 0.495; AC1 = (0.7 - 0.495) / 0.505."""
    assert gwet_ac1(Ratings.of(two_by_two(), ["yes", "no"])) == pytest.approx(0.205 / 0.505)


def test_alpha_of_two_raters_by_hand() -> None:
    """n = 100, n_yes = 55: A_e = (55 * 54 + 45 * 44) / (100 * 99) = 0.5; alpha = (0.7 - 0.5) / 0.5."""
    assert krippendorff_alpha(Ratings.of(two_by_two(), ["yes", "no"])) == pytest.approx(0.4)


def test_perfect_and_undefined() -> None:
    same = of("a b c a b c")
    names = ["a", "b", "c"]
    for value in (
        krippendorff_alpha(Ratings.of([same, same], names)),
        cohen_kappa(same, same, names),
        gwet_ac1(Ratings.of([same, same], names)),
    ):
        assert value == pytest.approx(1)
    one = of("a a a")
    assert np.isnan(krippendorff_alpha(Ratings.of([one, one], names)))
    assert np.isnan(cohen_kappa(one, one, names))
    assert np.isnan(cohen_kappa(of(". ."), of("a b"), names))


def test_missing_ratings_are_left_out_and_never_a_category() -> None:
    first, second = two_by_two()
    assert cohen_kappa([*first, None, "yes"], [*second, "no", None], ["yes", "no"]) == pytest.approx(0.4)
    with_lone = Ratings.of([[*first, "yes"], [*second, None]], ["yes", "no"])
    assert krippendorff_alpha(with_lone) == pytest.approx(0.4)


def test_the_interval_at_100_items_is_about_a_tenth_wide_on_either_side() -> None:
    generator = np.random.default_rng(0)
    names = [f"c{index}" for index in range(10)]
    truth = [names[index] for index in generator.integers(10, size=100)]
    said = [name if generator.random() < 0.7 else names[int(generator.integers(10))] for name in truth]
    found = agreement({"ann": truth}, said, names)
    kappa = found["raters"]["ann"]["kappa"]
    assert kappa["ci_low"] < kappa["value"] < kappa["ci_high"]
    assert 0.14 < kappa["ci_high"] - kappa["ci_low"] < 0.24
    assert found["raters"]["ann"]["n"] == found["n_items"] == 100
    assert "alpha_between_people" not in found


def test_bootstrap_weights_of_one_give_the_value_itself() -> None:
    ratings = Ratings.of(PUBLISHED, list("12345"))
    ones = np.ones((1, 12))
    assert krippendorff_alpha(ratings, ones)[0] == pytest.approx(krippendorff_alpha(ratings))
    assert gwet_ac1(ratings, ones)[0] == pytest.approx(gwet_ac1(ratings))


def test_confusion_precision_and_recall_by_hand() -> None:
    table = confusion(*two_by_two(), ["yes", "no", "maybe"])
    assert table.loc["yes", "yes"] == 20
    assert table.loc["yes", "no"] == 5
    rows = {row["name"]: row for row in precision_recall(table)}
    assert set(rows) == {"yes", "no"}
    assert rows["yes"]["precision"]["value"] == pytest.approx(20 / 30)
    assert rows["yes"]["recall"]["value"] == pytest.approx(20 / 25)
    assert rows["yes"]["precision"]["ci_low"] == pytest.approx(0.4878, abs=1e-3)
    assert rows["yes"]["precision"]["ci_high"] == pytest.approx(0.8077, abs=1e-3)
