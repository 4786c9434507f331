"""The delta table of several crosscoders per pair: columns, states and refusals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from crossdiff import ensemble_deltas
from crossdiff.statistics.deltas import COLUMNS, category_deltas
from crossdiff.statistics.ensemble import ENSEMBLE_COLUMNS
from crossdiff.taxonomy.scheme import PaperTaxonomy

TAXONOMY = PaperTaxonomy().load()
NAMES = [category.name for category in TAXONOMY.categories]


def _labels(counts: dict[str, int], total: int) -> list[str]:
    labels = [name for name, count in counts.items() for _ in range(count)]
    return labels + ["other"] * (total - len(labels))


def _runs(generator: np.random.Generator, n_runs: int, first: float = 8) -> list[list[str]]:
    """`first` latents on average of the first category, 8 of every other, and 40 of `other`."""
    means = np.array([first, *[8.0] * (len(NAMES) - 1)])
    counts = generator.poisson(means, (n_runs, len(NAMES)))
    return [_labels(dict(zip(NAMES, row.tolist(), strict=True)), int(row.sum()) + 40) for row in counts]


def test_one_crosscoder_per_pair_gives_today_s_table_and_says_what_it_lacks() -> None:
    reference, treatment = _labels({"translation": 8}, 40), _labels({"translation": 3}, 45)
    table = ensemble_deltas([reference], [treatment], taxonomy=TAXONOMY)
    today = category_deltas(reference, treatment, taxonomy=TAXONOMY)
    pd.testing.assert_frame_equal(table[list(COLUMNS)], today)
    assert set(table.spread) == {"not measured"}
    assert table.phi.isna().all()
    assert table.holds_against_median.isna().all()


def test_counts_are_pooled_and_kept_per_run() -> None:
    reference = [_labels({"translation": n}, 30) for n in (2, 3, 4)]
    treatment = [_labels({"translation": n}, 20) for n in (5, 6)]
    table = ensemble_deltas(reference, treatment, taxonomy=TAXONOMY)
    assert tuple(table.columns) == (*COLUMNS, *ENSEMBLE_COLUMNS)
    row = table.set_index("name").loc["translation"]
    assert (row.counts_reference, row.counts_treatment) == ("2 3 4", "5 6")
    assert (row.count_reference, row.total_reference, row.count_treatment, row.total_treatment) == (
        9,
        90,
        11,
        40,
    )
    assert (row.runs_reference, row.runs_treatment) == (3, 2)
    assert row.relative_change == pytest.approx(11 / 40 / (9 / 90) - 1)
    assert row.runs_agree == 1.0
    parent = table.set_index("name").loc["linguistic_multilingual"]
    assert parent.counts_reference == "2 3 4"


def test_a_planted_change_is_found_and_holds_against_the_median() -> None:
    generator = np.random.default_rng(5)
    table = ensemble_deltas(_runs(generator, 4), _runs(generator, 3, first=24), taxonomy=TAXONOMY)
    row = table.set_index("name").loc[NAMES[0]]
    assert row.q_value < 0.05
    assert row.holds_against_median == "yes"
    assert row.ci_low < 2 < row.ci_high
    assert set(table.spread) == {"measured"}
    half = (np.log1p(row.ci_high) - np.log1p(row.ci_low)) / 2
    counts = [(row.count_reference, row.total_reference), (row.count_treatment, row.total_treatment)]
    error = np.sqrt(row.phi * sum(1 / (s + 0.5) - 1 / (n + 0.5) for s, n in counts))
    assert half == pytest.approx(stats.t.ppf(0.975, row.df) * error)


def test_reserved_names_belong_to_no_family() -> None:
    generator = np.random.default_rng(6)
    table = ensemble_deltas(_runs(generator, 2), _runs(generator, 2), taxonomy=TAXONOMY).set_index("name")
    assert np.isnan(table.loc["other", "q_value"])
    assert table.loc["other", "p_value"] >= 0
    for level, names in (("class", 7), ("category", 30)):
        rows = table[(table.level == level) & table.q_value.notna()]
        assert len(rows) == names
        expected = stats.false_discovery_control(rows.p_value)
        np.testing.assert_allclose(rows.q_value, expected)


def test_a_zero_leaves_the_interval_open() -> None:
    generator = np.random.default_rng(7)
    table = ensemble_deltas(_runs(generator, 3), _runs(generator, 3, first=0), taxonomy=TAXONOMY)
    gone = table.set_index("name").loc[NAMES[0]]
    assert (gone.relative_change, gone.ci_low) == (-1, -1)
    assert gone.ci_high < 0
    new = ensemble_deltas(_runs(generator, 3, first=0), _runs(generator, 3), taxonomy=TAXONOMY)
    new = new.set_index("name").loc[NAMES[0]]
    assert np.isposinf(new.relative_change)
    assert np.isposinf(new.ci_high)
    assert new.ci_low > 0


def test_a_side_without_labelled_latents_has_no_change() -> None:
    table = ensemble_deltas([["translation"]] * 3, [[], []], taxonomy=TAXONOMY)
    assert table.relative_change.isna().all()
    assert table.ci_low.isna().all()
    assert table.p_value.isna().all()
    assert set(table.spread) == {"not measured"}


def test_a_run_without_labelled_latents_counts_for_nothing() -> None:
    generator = np.random.default_rng(8)
    reference, treatment = _runs(generator, 3), _runs(generator, 3)
    table = ensemble_deltas([*reference, []], treatment, taxonomy=TAXONOMY)
    without = ensemble_deltas(reference, treatment, taxonomy=TAXONOMY)
    pd.testing.assert_series_equal(table.ci_low, without.ci_low)
    pd.testing.assert_series_equal(table.runs_agree, without.runs_agree)
    assert table.counts_reference.str.endswith(" 0").all()


def test_swapping_the_pairs_turns_the_sign() -> None:
    generator = np.random.default_rng(9)
    reference, treatment = _runs(generator, 3), _runs(generator, 2, first=16)
    forth = ensemble_deltas(reference, treatment, taxonomy=TAXONOMY)
    back = ensemble_deltas(treatment, reference, taxonomy=TAXONOMY)
    np.testing.assert_allclose(np.log1p(forth.ci_low.dropna()), -np.log1p(back.ci_high.dropna()))
    np.testing.assert_allclose(forth.p_value, back.p_value)


def test_a_flat_list_and_no_crosscoder_are_refused() -> None:
    with pytest.raises(ValueError, match="list of such lists"):
        ensemble_deltas(["translation"], [["translation"]])
    with pytest.raises(ValueError, match="has no crosscoder"):
        ensemble_deltas([], [["translation"]])
    with pytest.raises(ValueError, match="empty or missing label"):
        ensemble_deltas([[""]], [["translation"]])
