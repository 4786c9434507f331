"""Reading documents: one record per line, row or file, each with its place for messages and for resuming."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from crossdiff.data.corpus import (
    FilesSource,
    HubSource,
    OrganismSource,
    Source,
    expand,
    kind_of,
    opened,
)
from crossdiff.data.hub_stream import hub_rows
from crossdiff.data.row_content import (
    BESIDE,
    CHATS,
    WAY_OUT,
    BadRecord,
    attended,
    content_of,
    from_json,
    parsed,
)
from crossdiff.models.chat import Message

_COLUMNS = ("text", "messages", "conversation", "conversations", "input_ids")


@dataclass(frozen=True)
class Record:
    """One document before tokenisation: text, chat messages or ready token ids."""

    place: str
    """File and line, or data set and row, for messages."""
    id: str
    content: str | list[Message] | list[int]
    tools: list[Any] | None = None
    """Tools that the template of a chat lists."""

    def digest(self) -> bytes:
        """16 bytes that equal those of another record exactly when the contents are equal."""
        content = self.content if self.tools is None else [self.content, self.tools]
        text = content if isinstance(content, str) else json.dumps(content, sort_keys=True, default=str)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]


def records(source: Source, *, organism: Path | None, start: int = 0) -> Iterator[Record | BadRecord]:
    """Documents of a source from position `start` on; a bad one is handed over as the error itself."""
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
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
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
                row = _record(row, place, name, column=source.column, id_column=source.id_column)
            yield row


def _whole_json(path: Path) -> list[Any] | None:
    """Rows of a .json file that is one value (an array, or one object over several lines); None for lines."""
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
        yield _record(row, f"{path}:{number}", name, column=source.column, id_column=source.id_column)


def _parquet_records(path: Path, source: FilesSource) -> Iterator[Record | BadRecord]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        file = pq.ParquetFile(path)
        wanted = {*_COLUMNS, *BESIDE, source.column, source.id_column}
        read = [name for name in file.schema_arrow.names if name in wanted]  # others may not be readable
        if not wanted.difference({*BESIDE, source.id_column}).intersection(read):
            read = None
        for batch in file.iter_batches(batch_size=1024, columns=read):
            for row in batch.to_pylist():
                place, name = f"{path}:{number}", f"{path.name}:{number}"
                yield _record(row, place, name, column=source.column, id_column=source.id_column)
                number += 1
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        yield BadRecord(f"{path} is no readable parquet file from row {number} on ({error}); {WAY_OUT}")


def _hub_records(source: HubSource, start: int) -> Iterator[Record | BadRecord]:
    for number, row in hub_rows(source, start):
        place, name = f"{source.dataset}:{number}", f"{source.name}:{number}"
        yield _record(row, place, name, column=source.column, id_column=source.id_column)


def _lines(path: Path) -> Iterator[tuple[int, str | BadRecord]]:
    with opened(path) as handle:
        for number, raw in enumerate(handle, start=1):
            try:
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                message = f"{path}:{number} is not UTF-8 (byte {error.start}: {error.reason}); {WAY_OUT}"
                yield number, BadRecord(message)


def _record(
    row: Any, place: str, fallback: str, *, column: str | None, id_column: str | None
) -> Record | BadRecord:
    if not isinstance(row, dict):
        return BadRecord(
            f"{place} holds {type(row).__name__}, a document is an object with text or messages; {WAY_OUT}"
        )
    filled = (name for name in _COLUMNS if row.get(name) not in (None, "", []))
    present = (name for name in _COLUMNS if row.get(name) is not None)
    key = column or next(filled, next(present, None))
    empty = [name for name in ([column] if column else _COLUMNS) if name in row]
    if empty and (key is None or row[key] is None):
        return BadRecord(f"{place}: {' and '.join(empty)} is null, so there is no document; {WAY_OUT}")
    if key is None or key not in row:
        wanted = column or ", ".join(_COLUMNS)
        return BadRecord(
            f"{place} has keys {sorted(row)[:8]} but none of {wanted}; set corpus.column or mend it"
        )
    content = content_of(row[key], is_chat=key in CHATS or bool(column))
    if isinstance(content, BadRecord):
        return BadRecord(f"{place} cannot be read: {key}{content}; {WAY_OUT}")
    if content and isinstance(content, list) and isinstance(content[0], int):
        content = attended(cast("list[int]", content), row.get("attention_mask"))
        if content is None:
            return BadRecord(f"{place} has an attention_mask of another length than {key}; {WAY_OUT}")
    named = row.get(id_column) if id_column else None
    is_messages = isinstance(content, list) and bool(content) and isinstance(content[0], dict)
    tools = from_json(row.get("tools")) if is_messages else None
    tools = tools if isinstance(tools, list) and tools else None
    record = Record(place, fallback if named is None else str(named), content, tools)  # type: ignore[arg-type]
    if not _is_unicode(record):
        return BadRecord(f"{place} holds half of a surrogate pair, which is no Unicode text; {WAY_OUT}")
    return record


def _is_unicode(record: Record) -> bool:
    """Whether a tokenizer can take the strings: JSON may spell one half of a pair, as in a cut emoji."""
    content = record.content
    texts = (
        [content]
        if isinstance(content, str)
        else [json.dumps(m, ensure_ascii=False, default=str) for m in content if isinstance(m, dict)]
    )
    try:
        "".join([record.id, *texts]).encode()
    except UnicodeEncodeError:
        return False
    return True
