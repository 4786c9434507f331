"""Sign stability against counts whose answer is known by hand."""

import numpy as np
import pytest

from crossdiff.studies.changes import CategoryCounts, mean_correlation, same_sign, stability


def counts(*runs: tuple[list[int], list[int]]) -> CategoryCounts:
    array = np.array([[list(reference), list(treatment)] for reference, treatment in runs])
    names = tuple(f"c{index}" for index in range(array.shape[2]))
    return CategoryCounts(names, array, np.zeros(array.shape[:2], dtype=np.int64))


def test_log_change_by_hand() -> None:
    # 4 of 10 against 2 of 10: log(4.5/10.5) - log(2.5/10.5) = log(1.8)
    found = counts(([2, 8, 0], [4, 6, 0])).log_changes()
    assert found[0, 0] == pytest.approx(np.log(1.8))
    assert np.isnan(found[0, 2])


def test_a_sign_is_kept_only_when_every_run_agrees() -> None:
    logs = np.array([[0.5, -0.2, 0.3, np.nan], [0.1, -0.9, -0.3, 0.2]])
    assert same_sign(logs) == (2, 3)


def test_equal_runs_are_stable_beyond_chance() -> None:
    run = ([20, 5, 20, 5, 20, 5, 12, 12], [5, 20, 5, 20, 5, 20, 12, 12])
    found = stability(counts(run, run, run), draws=200)
    assert found["kept"] >= 6
    assert found["chance"] < 4
    assert found["share_low"] <= found["share"] <= found["share_high"]
    assert found["spearman"] == pytest.approx(1.0)


def test_runs_without_a_common_category_are_unknown() -> None:
    assert np.isnan(mean_correlation(np.array([[np.nan, 1.0], [1.0, np.nan]])))
    assert same_sign(np.array([[np.nan, 1.0], [1.0, np.nan]])) == (0, 0)


def test_a_pair_without_labels_has_no_change() -> None:
    assert np.isnan(counts(([0, 0], [3, 1])).log_changes()).all()
