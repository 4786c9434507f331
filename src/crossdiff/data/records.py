"""Reading documents: one record per line, row or file, each with its place for messages and for resuming."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from crossdiff.data.corpus import FilesSource, HubSource, OrganismSource, Source, expand
from crossdiff.data.hub_stream import hub_rows

Message = dict[str, str]
_COLUMNS = ("text", "messages", "conversation", "conversations", "input_ids")
_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}


class BadRecord(ValueError):
    """A line or row that cannot be used; names its place, the rule and the way out."""


@dataclass(frozen=True)
class Record:
    """One document before tokenisation: text, chat messages or ready token ids."""

    place: str
    """File and line, or data set and row, for messages."""
    id: str
    content: str | list[Message] | list[int]

    def digest(self) -> bytes:
        """16 bytes that equal those of another record exactly when the contents are equal."""
        text = self.content if isinstance(self.content, str) else json.dumps(self.content, sort_keys=True)
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
        match path.suffix:
            case ".txt":
                yield from _txt_records(path, source.txt)
            case ".jsonl":
                yield from _jsonl_records(path, source)
            case ".parquet":
                yield from _parquet_records(path, source)


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
            row = _parsed(line, place)
            if not isinstance(row, BadRecord):
                name = f"{path.name}:{number}"
                row = _record(row, place, name, column=source.column, id_column=source.id_column)
            yield row


def _parsed(line: str, place: str) -> Any:
    """The value of a line of JSON, or what is wrong with it."""
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        return BadRecord(f"{place} is not JSON ({error.msg} at column {error.colno}); {_WAY_OUT}")
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, lists inside lists
        return BadRecord(f"{place} is JSON that Python refuses ({error}); {_WAY_OUT}")


def _parquet_records(path: Path, source: FilesSource) -> Iterator[Record | BadRecord]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                place, name = f"{path}:{number}", f"{path.name}:{number}"
                yield _record(row, place, name, column=source.column, id_column=source.id_column)
                number += 1
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        yield BadRecord(f"{path} is no readable parquet file from row {number} on ({error}); {_WAY_OUT}")


def _hub_records(source: HubSource, start: int) -> Iterator[Record | BadRecord]:
    for number, row in hub_rows(source, start):
        place, name = f"{source.dataset}:{number}", f"{source.name}:{number}"
        yield _record(row, place, name, column=source.column, id_column=source.id_column)


_WAY_OUT = "mend it, or count and skip such lines with corpus.skip_bad=true"


def _lines(path: Path) -> Iterator[tuple[int, str | BadRecord]]:
    with path.open("rb") as handle:
        for number, raw in enumerate(handle, start=1):
            try:
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                message = f"{path}:{number} is not UTF-8 (byte {error.start}: {error.reason}); {_WAY_OUT}"
                yield number, BadRecord(message)


def _record(
    row: Any, place: str, fallback: str, *, column: str | None, id_column: str | None
) -> Record | BadRecord:
    if not isinstance(row, dict):
        return BadRecord(
            f"{place} holds {type(row).__name__}, a document is an object with text or messages; {_WAY_OUT}"
        )
    key = column or next((name for name in _COLUMNS if row.get(name) is not None), None)
    empty = [name for name in ([column] if column else _COLUMNS) if name in row]
    if empty and (key is None or row[key] is None):
        return BadRecord(f"{place}: {' and '.join(empty)} is null, so there is no document; {_WAY_OUT}")
    if key is None or key not in row:
        wanted = column or ", ".join(_COLUMNS)
        return BadRecord(
            f"{place} has keys {sorted(row)[:8]} but none of {wanted}; set corpus.column or mend it"
        )
    content = _content(row[key])
    if content is None:
        return BadRecord(
            f"{place} has a {key!r} that is neither text, messages (role, content) nor ids; {_WAY_OUT}"
        )
    named = row.get(id_column) if id_column else None
    record = Record(place, fallback if named is None else str(named), content)
    if not _is_unicode(record):
        return BadRecord(f"{place} holds half of a surrogate pair, which is no Unicode text; {_WAY_OUT}")
    return record


def _is_unicode(record: Record) -> bool:
    """Whether a tokenizer can take the strings: JSON may spell one half of a pair, as in a cut emoji."""
    content = record.content
    texts = (
        [content]
        if isinstance(content, str)
        else [text for m in content if isinstance(m, dict) for text in m.values()]
    )
    try:
        "".join([record.id, *texts]).encode()
    except UnicodeEncodeError:
        return False
    return True


def _content(value: Any) -> str | list[Message] | list[int] | None:
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        return None
    if all(isinstance(item, int) and not isinstance(item, bool) for item in value):
        return value
    messages = [_message(item) for item in value]
    return None if None in messages else [message for message in messages if message is not None]


def _message(item: Any) -> Message | None:
    if not isinstance(item, dict):
        return None
    role, content = item.get("role", item.get("from")), item.get("content", item.get("value"))
    if not isinstance(role, str) or not isinstance(content, str):
        return None
    return {"role": _ROLES.get(role, role), "content": content}
