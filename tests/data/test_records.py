from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest

from crossdiff.data.corpus import FilesSource, HubSource, left_out
from crossdiff.data.records import WAITS_S, hub_rows, records
from crossdiff.data.row_content import BadRecord, Record


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


def read_all(folder: Path, **settings: Any) -> list[Record | BadRecord]:
    return list(records(FilesSource(paths=(str(folder),), **settings), organism=None))


def contents(folder: Path) -> list[Any]:
    return [r.content if isinstance(r, Record) else str(r) for r in read_all(folder)]


def test_files_of_every_kind_in_a_folder_are_read_and_the_rest_is_named(tmp_path: Path) -> None:
    import gzip

    import pyarrow as pa
    import pyarrow.parquet as pq

    def line(text: str) -> bytes:
        return json.dumps({"text": text}).encode() + b"\n"

    (tmp_path / "A.JSONL").write_bytes(line("a"))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(line("b")) + gzip.compress(line("b2")))
    with pa.CompressedOutputStream(pa.OSFile(str(tmp_path / "c.jsonl.zst"), "wb"), "zstd") as handle:
        handle.write(line("c"))
    (tmp_path / "d.json").write_bytes(line("d") + line("d2"))
    (tmp_path / "e.json").write_text(json.dumps([{"text": "e"}, {"text": "e2"}], indent=1))
    (tmp_path / "f.json").write_text(json.dumps({"text": "f"}, indent=1))
    (tmp_path / "g.parquet").mkdir()
    pq.write_table(pa.table({"text": ["g"]}), tmp_path / "g.parquet" / "part-0.parquet")
    (tmp_path / "g.parquet" / "_SUCCESS").touch()
    (tmp_path / "h.jsonl").symlink_to(tmp_path / "nowhere")
    assert contents(tmp_path) == ["a", "b", "b2", "c", "d", "d2", "e", "e2", "f", "g"]
    named = left_out([str(tmp_path)])
    assert [name.rpartition("/")[2] for name in named] == ["_SUCCESS", "h.jsonl (broken link)"]


ROWS = {
    "chats as strings": (
        {"messages": '[{"role": "user", "content": "a"}]'},
        [{"role": "user", "content": "a"}],
    ),
    "padding beside ids": ({"input_ids": [7, 8, 9], "attention_mask": [0, 1, 1]}, [8, 9]),
    "padding told by false": ({"input_ids": [7, 8], "attention_mask": [True, False]}, [7]),
    "an empty text beside messages": (
        {"text": "", "messages": [{"from": "human", "value": "a"}]},
        [{"role": "user", "content": "a"}],
    ),
    "fields beside role and content": (
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [1], "x": None}]},
        [{"role": "assistant", "content": None, "tool_calls": [1]}],
    ),
}
REFUSED = {
    "no content": ({"messages": [{"role": "user", "content": None}]}, "messages[0].content is null"),
    "an image": (
        {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
        "messages[0].content[0] is 'image'",
    ),
    "a mask of another length": ({"input_ids": [1, 2], "attention_mask": [1]}, "attention_mask of another"),
    "a mask of segments": (
        {"input_ids": [1, 2], "attention_mask": [1, 2]},
        "attention_mask with 2 at place 1",
    ),
    "a mask of penalties": ({"input_ids": [1], "attention_mask": [-1e4]}, "only 1 (a token) and 0 (padding)"),
    "a mask of null": ({"input_ids": [1], "attention_mask": [None]}, "attention_mask with None"),
}


@pytest.mark.parametrize("kind", ROWS)
def test_rows_of_odd_kinds_are_read(kind: str, tmp_path: Path) -> None:
    row, expected = ROWS[kind]
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    assert contents(tmp_path) == [expected]


@pytest.mark.parametrize("kind", REFUSED)
def test_rows_that_cannot_be_read_name_the_field(kind: str, tmp_path: Path) -> None:
    row, message = REFUSED[kind]
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    (found,) = read_all(tmp_path)
    assert isinstance(found, BadRecord)
    assert message in str(found)


def test_dates_out_of_range_in_unused_columns_do_not_matter(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    far = pa.array([2**60], pa.int64()).cast(pa.timestamp("us"))
    pq.write_table(pa.table({"text": ["a"], "when": far}), tmp_path / "a.parquet")
    assert contents(tmp_path) == ["a"]


SOURCE = HubSource(name="web", dataset="some/data")
N_ROWS = 20


class Network:
    """`load_dataset` of 20 rows; `faults` are raised one by one, at the row given or (None) on opening."""

    def __init__(self, *faults: tuple[int | None, Exception]) -> None:
        self.faults = list(faults)
        self.waits: list[float] = []

    def load(self, *_args: Any, **_options: Any) -> datasets.IterableDataset:
        if self.faults and self.faults[0][0] is None:
            raise self.faults.pop(0)[1]
        return datasets.IterableDataset.from_generator(self.rows)  # type: ignore[return-value]

    def rows(self) -> Iterator[dict[str, str]]:
        for number in range(N_ROWS):
            if self.faults and self.faults[0][0] == number:
                raise self.faults.pop(0)[1]
            yield {"text": f"document {number}"}


def streamed(network: Network, monkeypatch: pytest.MonkeyPatch, *, start: int = 0) -> list[tuple[int, str]]:
    monkeypatch.setattr(datasets, "load_dataset", network.load)
    rows = hub_rows(SOURCE, start, sleep=network.waits.append)
    return [(number, row["text"]) for number, row in rows]


def expected(start: int = 0) -> list[tuple[int, str]]:
    return [(number, f"document {number}") for number in range(start, N_ROWS)]


def test_a_stream_that_breaks_off_goes_on_at_the_same_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = ConnectionError("Server Disconnected")
    network = Network((12, broken), (None, ConnectionError("Couldn't reach")), (15, TimeoutError()))
    assert streamed(network, monkeypatch, start=3) == expected(3)
    assert network.waits == [15.0, 45.0, 15.0]
    told = capsys.readouterr().out.splitlines()
    assert told[0] == (
        "dataset some/data broke off at row 12 (ConnectionError: Server Disconnected); opening it again in "
        "15 s (attempt 1 of 5)"
    )
    assert len(told) == 3


def test_an_outage_before_the_first_row_of_a_dataset_that_was_reached_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = Network((0, ConnectionError("Server Disconnected")))
    assert streamed(network, monkeypatch) == expected()


def test_an_outage_that_lasts_is_the_message_of_an_unreachable_dataset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = Network((5, ConnectionError("gone")), *[(None, ConnectionError("gone"))] * 5)
    with pytest.raises(ValueError, match=r"dataset some/data cannot be reached .*gone; .*use corpus=files"):
        streamed(network, monkeypatch)
    assert network.waits == list(WAITS_S)
    assert sum(network.waits) == 600


@pytest.mark.parametrize(
    "faults",
    [
        [(None, ConnectionError("Couldn't reach 'some/data' on the Hub"))],
        [(None, datasets.exceptions.DatasetNotFoundError("Dataset 'some/data' doesn't exist"))],
        [(4, FileNotFoundError("If the repo is private or gated, make sure to log in"))],
    ],
)
def test_a_first_failure_a_wrong_name_and_a_missing_login_are_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, faults: list[Any]
) -> None:
    network = Network(*faults)
    with pytest.raises(ValueError, match="dataset some/data cannot be reached or read"):
        streamed(network, monkeypatch)
    assert network.waits == []
