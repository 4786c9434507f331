"""Agreement statistics against numbers worked by hand or published."""

from __future__ import annotations

import json

import numpy as np
import pytest

from crossdiff.report.human_check import agreement_lines, block
from crossdiff.statistics.agreement import (
    Ratings,
    agreement,
    cohen_kappa,
    confusion,
    gwet_ac1,
    human_check,
    krippendorff_alpha,
    precision_recall,
)
from crossdiff.taxonomy.scheme import PaperTaxonomy


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


def test_ac1_takes_its_chance_term_from_items_with_one_rating_too() -> None:
    """Items aa, ab, bb and a alone: pi_a = (1 + 1/2 + 0 + 1) / 4, A_e = 2 pi_a pi_b / 1, A_o = 2/3."""
    ratings = Ratings.of([of("a a b a"), of("a b b .")], ["a", "b"])
    expected = 2 * 0.625 * 0.375
    assert gwet_ac1(ratings) == pytest.approx((2 / 3 - expected) / (1 - expected))
    assert gwet_ac1(ratings, np.ones((2, 4))) == pytest.approx([gwet_ac1(ratings)] * 2)
