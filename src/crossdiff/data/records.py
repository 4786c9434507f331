"""Reading documents from files and hub datasets: one record per line, row or file, with its place.

A hub dataset survives network outages of some minutes.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from crossdiff.data.corpus import FilesSource, HubSource, OrganismSource, Source, expand, kind_of, opened
from crossdiff.data.row_content import BESIDE, COLUMNS, WAY_OUT, BadRecord, Record, parsed, record_of
from crossdiff.models.hub import hub, is_outage


def records(source: Source, *, organism: Path | None, start: int = 0) -> Iterator[Record | BadRecord]:
    """Documents of a source from position `start` on, with a `BadRecord` for every bad one."""
    match source:
        case HubSource():
            yield from _hub_records(source, start)
        case OrganismSource():
            if organism is None:
                raise ValueError(f"corpus source {source.name} is the toy organism's; use it with toy models")
            path = organism / "corpus" / source.file
            files = FilesSource(name=source.name, paths=(str(path),))
            yield from _skip(_file_records(files), start)
        case FilesSource():
            yield from _skip(_file_records(source), start)


def _skip(items: Iterator[Record | BadRecord], start: int) -> Iterator[Record | BadRecord]:
    for position, item in enumerate(items):
        if position >= start:
            yield item


def _file_records(source: FilesSource) -> Iterator[Record | BadRecord]:
    for path in expand(source.paths):
        try:
            match kind_of(path):
                case ".txt":
                    yield from _txt_records(path, source.txt)
                case ".json" if (rows := _whole_json(path)) is not None:
                    yield from _row_records(path, rows, source)
                case ".jsonl" | ".json":
                    yield from _jsonl_records(path, source)
                case ".parquet":
                    yield from _parquet_records(path, source)
        except (EOFError, OSError, zlib.error) as error:
            if (
                isinstance(error, OSError) and error.errno is not None
            ):  # an error of the disk, not of the content
                raise
            yield BadRecord(f"{path} is no whole compressed file ({error}); {WAY_OUT}")


def _txt_records(path: Path, unit: Literal["file", "paragraph", "line"]) -> Iterator[Record | BadRecord]:
    pending: list[str] = []
    first = 1
    for number, line in _lines(path):
        if isinstance(line, BadRecord):
            yield line
            continue
        ends = unit == "line" or (unit == "paragraph" and not line.strip())
        pending.append(line)
        if ends:
            yield from _text_record(path, first, pending)
            pending, first = [], number + 1
    yield from _text_record(path, first, pending)


def _text_record(path: Path, line: int, lines: list[str]) -> Iterator[Record]:
    text = "\n".join(lines).strip()
    if text:
        yield Record(f"{path}:{line}", f"{path.name}:{line}", text)


def _jsonl_records(path: Path, source: FilesSource) -> Iterator[Record | BadRecord]:
    for number, line in _lines(path):
        place = f"{path}:{number}"
        if isinstance(line, BadRecord):
            yield line
        elif line.strip():
            row = parsed(line, place)
            if not isinstance(row, BadRecord):
                name = f"{path.name}:{number}"
                row = record_of(row, place, name, column=source.column, id_column=source.id_column)
            yield row


def _whole_json(path: Path) -> list[Any] | None:
    """Rows of a .json file with one value (an array, or an object over several lines); None for lines."""
    with opened(path) as handle:
        text = handle.read().decode("utf-8-sig", "surrogateescape")
    first = text.lstrip()[:1]
    if first != "[" and (
        first != "{" or not isinstance(parsed(text.lstrip().split("\n", 1)[0], ""), BadRecord)
    ):
        return None
    value = parsed(text, str(path))
    return value if isinstance(value, list) else [value]


def _row_records(path: Path, rows: list[Any], source: FilesSource) -> Iterator[Record | BadRecord]:
    for number, row in enumerate(rows, start=1):
        if isinstance(row, BadRecord):
            yield row
            continue
        name = f"{path.name}:{number}"
        yield record_of(row, f"{path}:{number}", name, column=source.column, id_column=source.id_column)


def _parquet_records(path: Path, source: FilesSource) -> Iterator[Record | BadRecord]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        file = pq.ParquetFile(path)
        wanted = {*COLUMNS, *BESIDE, source.column, source.id_column}
        read = [
            name for name in file.schema_arrow.names if name in wanted
        ]  # other columns may not be readable
        if not wanted.difference({*BESIDE, source.id_column}).intersection(read):
            read = None
        for batch in file.iter_batches(batch_size=1024, columns=read):
            for row in batch.to_pylist():
                place, name = f"{path}:{number}", f"{path.name}:{number}"
                yield record_of(row, place, name, column=source.column, id_column=source.id_column)
                number += 1
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        yield BadRecord(f"{path} is no readable parquet file from row {number} on ({error}); {WAY_OUT}")


def _hub_records(source: HubSource, start: int) -> Iterator[Record | BadRecord]:
    for number, row in hub_rows(source, start):
        place, name = f"{source.dataset}:{number}", f"{source.name}:{number}"
        yield record_of(row, place, name, column=source.column, id_column=source.id_column)


def _lines(path: Path) -> Iterator[tuple[int, str | BadRecord]]:
    with opened(path) as handle:
        for number, raw in enumerate(handle, start=1):
            try:
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                message = f"{path}:{number} is not UTF-8 (byte {error.start}: {error.reason}); {WAY_OUT}"
                yield number, BadRecord(message)


WAITS_S = (15.0, 45.0, 120.0, 180.0, 240.0)
"""Pauses before a broken stream is opened again: 10 minutes, after the `datasets` library's own attempts."""


def hub_rows(
    source: HubSource, start: int, *, sleep: Callable[[float], object] = time.sleep
) -> Iterator[tuple[int, Any]]:
    """(position, row) from position `start` on.

    After the first connection, an outage is printed and the stream opened again where it broke, up to
    `len(WAITS_S)` times in a row. ValueError where the dataset cannot be reached or read.
    """
    way_out = "download it and use corpus=files 'corpus.paths=[folder]' (and check the name and your access)"
    position, n_failed, reached = start, 0, False
    with hub(f"dataset {source.dataset}", way_out=way_out):
        while True:
            try:
                stream = _opened(source)
                reached = True
                for row in stream.skip(position):
                    position, n_failed = position + 1, 0
                    yield position - 1, row
                return
            except Exception as error:
                if not reached or n_failed == len(WAITS_S) or not is_outage(error):
                    raise
                _tell(source, position, error, n_failed)
            sleep(WAITS_S[n_failed])
            n_failed += 1


def _opened(source: HubSource) -> Any:
    import datasets

    return datasets.load_dataset(
        source.dataset, source.config, split=source.split, revision=source.revision, streaming=True
    )


def _tell(source: HubSource, position: int, error: Exception, n_failed: int) -> None:
    reason = " ".join(str(error).split())[:120]
    print(
        f"dataset {source.dataset} broke off at row {position:,} ({type(error).__name__}: {reason}); opening "
        f"it again in {WAITS_S[n_failed]:.0f} s (attempt {n_failed + 1} of {len(WAITS_S)})",
        flush=True,
    )
