"""Delta tables as they are read again."""

import math
from pathlib import Path

import pytest

from crossdiff.report import tables
from crossdiff.report.delta_rows import delta_rows
from crossdiff.report.frames import read_deltas
from crossdiff.report.runs import _deltas
from crossdiff.statistics.deltas import category_deltas
from crossdiff.statistics.ensemble import ensemble_deltas
from crossdiff.statistics.pooling import read_run

NAMES = ["null", "nan", "NA", "None", "12"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = category_deltas([*NAMES, "mathematics"], [*NAMES, "null", "translation"], draws=50)
    found.to_csv(tmp_path / "deltas.csv", index=False)
    return tmp_path / "deltas.csv"


def test_categories_may_be_called_what_pandas_takes_for_missing(path: Path) -> None:
    rows = {row.name: row for row in delta_rows(read_deltas(path)) if not row.is_class}
    assert set(NAMES) <= set(rows)
    assert rows["null"].counts == (1, 2)
    assert {row.name for row in _deltas(path)} >= set(NAMES)


def test_empty_cells_stay_missing_and_numbers_stay_numbers(path: Path) -> None:
    rows = {row.name: row for row in delta_rows(read_deltas(path))}
    assert rows["technical"].parent is None
    assert rows["null"].parent is None
    assert rows["mathematics"].parent == "technical"
    assert math.isinf(rows["translation"].change)
    assert math.isnan(rows["technical"].p_seed_null)
    assert read_deltas(path)["q_value"].dtype == float


def test_planted_truth_finds_such_a_name(path: Path) -> None:
    planted = [{"name": "null", "group": "gain", "change": 1.0}]
    assert read_run(read_deltas(path), planted).treatment.tolist() == [2]


def test_counts_per_crosscoder_stay_text_on_the_way_to_the_page(tmp_path: Path) -> None:
    """One crosscoder's counts look like numbers in the file."""
    many = ["translation"] * 9 + ["mathematics"] * 4 + ["other"] * 20
    table = ensemble_deltas([many], [many, many, many])
    table.to_csv(tmp_path / "deltas.csv", index=False)
    row = next(row for row in delta_rows(read_deltas(tmp_path / "deltas.csv")) if row.name == "translation")
    assert row.per_run == ("9 9 9", "9")
    assert row.holds_against_median == "no"
    shown = tables.deltas([row], planted=None)
    assert [column.title for column in shown.columns][-3:] == [
        "Per crosscoder", "Runs agree", "Against the median"
    ]  # fmt: skip
    assert [cell.text for cell in shown.rows[0].cells][-3:] == ["9 9 9 : 9", "–", "does not hold"]
