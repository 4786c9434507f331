"""Tables carry their kind and version."""

import math
from pathlib import Path

import pandas as pd
import pytest

from crossdiff.io.tables import (
    read_deltas,
    read_json,
    read_jsonl,
    read_table,
    write_json,
    write_jsonl,
    write_table,
)
from crossdiff.report import tables
from crossdiff.report.delta_rows import delta_rows
from crossdiff.report.runs import _deltas
from crossdiff.statistics.deltas import category_deltas
from crossdiff.statistics.ensemble import ensemble_deltas
from crossdiff.statistics.pooling import read_run


def test_a_table_comes_back_as_it_was(tmp_path: Path) -> None:
    frame = pd.DataFrame({"latent": [1, 2], "nu": [0.5, float("nan")]})
    write_table(frame, tmp_path / "t.parquet", version=1, kind="latents")
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.parquet", kind="latents"), frame)


def test_another_kind_and_a_newer_version_are_refused(tmp_path: Path) -> None:
    write_table(pd.DataFrame({"x": [1]}), tmp_path / "t.parquet", version=2, kind="latents")
    with pytest.raises(ValueError, match="expected 'examples'"):
        read_table(tmp_path / "t.parquet", kind="examples")
    with pytest.raises(ValueError, match="version 2"):
        read_table(tmp_path / "t.parquet", kind="latents")


def test_a_cut_table_says_which_file(tmp_path: Path) -> None:
    write_table(pd.DataFrame({"x": [1]}), tmp_path / "t.parquet", version=1, kind="latents")
    (tmp_path / "t.parquet").write_bytes((tmp_path / "t.parquet").read_bytes()[:40])
    with pytest.raises(ValueError, match=r"t\.parquet is not a readable"):
        read_table(tmp_path / "t.parquet", kind="latents")


def test_json_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json({"x": float("nan")}, tmp_path / "x.json")
    write_json({"x": None}, tmp_path / "x.json")
    assert read_json(tmp_path / "x.json") == {"x": None}


def test_a_text_with_other_line_ends_stays_one_line(tmp_path: Path) -> None:
    rows = [{"answer": "one\u2028two\x85three"}, {"answer": "\u00e9\n"}]
    write_jsonl(rows, tmp_path / "x.jsonl")
    assert (tmp_path / "x.jsonl").read_bytes().count(b"\n") == 2
    assert read_jsonl(tmp_path / "x.jsonl") == rows
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_jsonl([{"x": float("nan")}], tmp_path / "y.jsonl")


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
