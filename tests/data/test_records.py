import json
from pathlib import Path

import pytest

from crossdiff.data.corpus import FilesSource
from crossdiff.data.records import BadRecord, Record, records


def read(tmp_path: Path, row: dict, **settings: str) -> Record | BadRecord:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n")
    return next(iter(records(FilesSource(paths=(str(file),), **settings), organism=None)))


@pytest.mark.parametrize(
    ("row", "settings"),
    [({"text": None}, {}), ({"text": None, "other": "a"}, {"column": "text"})],
)
def test_a_document_that_is_null_is_called_null(tmp_path: Path, row: dict, settings: dict) -> None:
    found = read(tmp_path, row, **settings)
    assert isinstance(found, BadRecord)
    assert "rows.jsonl:1: text is null" in str(found)
    assert "corpus.skip_bad=true" in str(found)


def test_a_null_beside_a_document_is_no_fault(tmp_path: Path) -> None:
    found = read(tmp_path, {"text": None, "input_ids": [1, 2]})
    assert isinstance(found, Record)
    assert found.content == [1, 2]


def test_a_row_without_a_document_lists_its_keys(tmp_path: Path) -> None:
    for settings in ({}, {"column": "body"}):
        found = read(tmp_path, {"title": "a"}, **settings)
        assert isinstance(found, BadRecord)
        assert "has keys ['title']" in str(found)
