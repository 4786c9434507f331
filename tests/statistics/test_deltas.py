"""The delta table against the published figures and hand-worked counts."""

from __future__ import annotations

import time

import numpy as np
import pytest

from crossdiff.statistics.deltas import COLUMNS, Labels, category_deltas, change_text
from crossdiff.taxonomy.scheme import PaperTaxonomy


def _labels(counts: dict[str, int], total: int) -> list[str]:
    labels = [name for name, count in counts.items() for _ in range(count)]
    return labels + ["other"] * (total - len(labels))


@pytest.mark.parametrize(
    ("treatment", "reference", "percent"),
    [(19, 18, 32.8), (4, 9, -44.1), (4, 7, -28.1), (1, 4, -68.5), (2, 1, 151.7), (3, 2, 88.8), (8, 7, 43.8),
     (21, 32, -17.4), (1, 2, -37.1)],
)  # fmt: skip
def test_counts_of_89_against_112_give_the_published_changes(treatment, reference, percent) -> None:
    table = category_deltas(_labels({"x": reference}, 112), _labels({"x": treatment}, 89)).set_index("name")
    assert round(100 * table.loc["x", "relative_change"], 1) == percent
    assert table.loc["x", "count_treatment"] == treatment
    assert table.loc["x", "total_reference"] == 112


def test_the_published_safety_change_does_not_exclude_zero() -> None:
    table = category_deltas(_labels({"x": 18}, 112), _labels({"x": 19}, 89)).set_index("name")
    assert table.loc["x", "ci_low"] == pytest.approx(-0.26, abs=0.03)
    assert table.loc["x", "ci_high"] == pytest.approx(1.36, abs=0.12)
    assert table.loc["x", "p_value"] > 0.2


def test_the_columns_are_the_public_ones_and_counts_are_integers() -> None:
    table = category_deltas(["translation"], ["mathematics"], taxonomy=PaperTaxonomy().load())
    assert tuple(table.columns) == COLUMNS
    assert (table.level == "class").sum() == 7
    assert (table.level == "category").sum() == 32
    assert all(table[name].dtype == np.int64 for name in table if name.startswith(("count", "total")))


def test_a_class_counts_its_categories() -> None:
    reference = _labels({"translation": 2, "grammar_correction": 3}, 10)
    table = category_deltas(reference, _labels({"translation": 4}, 10)).set_index("name")
    assert table.loc["linguistic_multilingual", "count_reference"] == 5
    assert table.loc["linguistic_multilingual", "count_treatment"] == 4
    assert table.loc["translation", "parent"] == "linguistic_multilingual"


def test_a_zero_reference_is_new_and_two_zeros_are_nothing() -> None:
    taxonomy = PaperTaxonomy().load()
    table = category_deltas(_labels({}, 20), _labels({"translation": 3}, 20), taxonomy=taxonomy)
    table = table.set_index("name")
    new, none = table.loc["translation"], table.loc["mathematics"]
    assert np.isposinf(new.relative_change)
    assert np.isposinf(new.ci_high)
    assert np.isfinite(new.ci_low)
    assert change_text(0, 3, new.relative_change) == "new (3 vs 0)"
    assert change_text(3, 3, -0.0001) == "+0.0 % (3 vs 3)"
    assert none[["relative_change", "ci_low", "ci_high", "p_value", "q_value"]].isna().all()


def test_an_empty_side_gives_a_well_formed_table_without_figures() -> None:
    table = category_deltas([], ["translation"] * 3, taxonomy=PaperTaxonomy().load())
    assert len(table) == 39
    assert table.relative_change.isna().all()
    assert table.p_value.isna().all()
    assert table.share_reference.isna().all()
    assert (table.total_reference == 0).all()
    assert len(category_deltas([], [])) == 0


def test_uninterpretable_and_other_stay_in_the_total_and_outside_the_tested_family() -> None:
    table = category_deltas(_labels({"translation": 5, "uninterpretable": 5}, 20), _labels({}, 20))
    table = table.set_index("name")
    assert table.loc["translation", "share_reference"] == 0.25
    assert np.isnan(table.loc["uninterpretable", "q_value"])
    assert not np.isnan(table.loc["translation", "q_value"])


def test_labels_that_are_majorities_of_noisy_votes_are_covered() -> None:
    """Of 3 votes each names the other category with chance e: P(majority "a") = p c + (1 - p) (1 - c).

    c = (1 - e)^3 + 3 (1 - e)^2 e = 0.93925 at e = 0.15; shares 0.12 and 0.3 become 0.16615 and 0.32425.
    """
    generator, inside, n_simulations = np.random.default_rng(5), 0, 200
    true = 0.32425 / 0.16615 - 1
    for number in range(n_simulations):
        sides = []
        for total, share in ((113, 0.12), (92, 0.3)):
            has = generator.random(total) < share
            flipped = (generator.random((total, 3)) < 0.15).sum(1) >= 2
            sides.append(np.where(has ^ flipped, "a", "b").tolist())
        row = category_deltas(*sides, draws=499, seed=number).set_index("name").loc["a"]
        assert row.ci_low <= row.relative_change <= row.ci_high
        inside += row.ci_low <= true <= row.ci_high
    assert inside / n_simulations >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / n_simulations)


def test_a_label_outside_the_taxonomy_is_refused() -> None:
    with pytest.raises(ValueError, match="changed after assignment"):
        category_deltas(["invented"], ["translation"], taxonomy=PaperTaxonomy().load())
    with pytest.raises(ValueError, match="missing label"):
        category_deltas([None], ["translation"])  # type: ignore[list-item]


def test_the_table_is_repeatable_and_fast() -> None:
    generator = np.random.default_rng(1)
    names = [category.name for category in PaperTaxonomy().load().categories]
    reference, treatment = generator.choice(names, 113).tolist(), generator.choice(names, 92).tolist()
    first = category_deltas(reference, treatment, seed=3)
    start = time.perf_counter()
    second = category_deltas(reference, treatment, seed=3)
    assert time.perf_counter() - start < 3
    assert first.equals(second)


def test_counts_are_by_name() -> None:
    assert Labels(["a", "a", "b", "c"]).counts(["a", "b", "x"]).tolist() == [2, 1, 0]


def test_draws_have_the_moments_of_latents_drawn_with_replacement() -> None:
    drawn = Labels(["a"] * 30 + ["b"] * 70).draw(["a"], draws=20_000, generator=np.random.default_rng(0))
    assert drawn.mean() == pytest.approx(30, abs=0.2)
    assert drawn.std() == pytest.approx(np.sqrt(100 * 0.3 * 0.7), rel=0.03)


def test_an_empty_side_draws_zeros() -> None:
    assert Labels([]).draw(["a", "b"], draws=3, generator=np.random.default_rng(0)).tolist() == [[0, 0]] * 3
