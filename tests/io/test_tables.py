"""Tables carry their kind and version."""

from pathlib import Path

import pandas as pd
import pytest

from crossdiff.io.tables import read_json, read_jsonl, read_table, write_json, write_jsonl, write_table


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
