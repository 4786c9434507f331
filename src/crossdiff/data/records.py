"""Reading documents: one record per line, row or file, each with its place for messages and for resuming."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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
from crossdiff.models.chat import Message

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
            yield BadRecord(f"{path} is no whole compressed file ({error}); {_WAY_OUT}")


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


def _whole_json(path: Path) -> list[Any] | None:
    """Rows of a .json file that is one value (an array, or one object over several lines); None for lines."""
    with opened(path) as handle:
        text = handle.read().decode("utf-8-sig", "surrogateescape")
    first = text.lstrip()[:1]
    if first != "[" and (
        first != "{" or not isinstance(_parsed(text.lstrip().split("\n", 1)[0], ""), BadRecord)
    ):
        return None
    value = _parsed(text, str(path))
    return value if isinstance(value, list) else [value]


def _row_records(path: Path, rows: list[Any], source: FilesSource) -> Iterator[Record | BadRecord]:
    for number, row in enumerate(rows, start=1):
        if isinstance(row, BadRecord):
            yield row
            continue
        name = f"{path.name}:{number}"
        yield _record(row, f"{path}:{number}", name, column=source.column, id_column=source.id_column)


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
        file = pq.ParquetFile(path)
        wanted = {*_COLUMNS, *_BESIDE, source.column, source.id_column}
        read = [name for name in file.schema_arrow.names if name in wanted]  # others may not be readable
        if not wanted.difference({*_BESIDE, source.id_column}).intersection(read):
            read = None
        for batch in file.iter_batches(batch_size=1024, columns=read):
            for row in batch.to_pylist():
                place, name = f"{path}:{number}", f"{path.name}:{number}"
                yield _record(row, place, name, column=source.column, id_column=source.id_column)
                number += 1
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        yield BadRecord(f"{path} is no readable parquet file from row {number} on ({error}); {_WAY_OUT}")


def _hub_records(source: HubSource, start: int) -> Iterator[Record | BadRecord]:
    for number, row in hub_rows(source, start):
        place, name = f"{source.dataset}:{number}", f"{source.name}:{number}"
        yield _record(row, place, name, column=source.column, id_column=source.id_column)


_WAY_OUT = "mend it, or count and skip such lines with corpus.skip_bad=true"


def _lines(path: Path) -> Iterator[tuple[int, str | BadRecord]]:
    with opened(path) as handle:
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
    filled = (name for name in _COLUMNS if row.get(name) not in (None, "", []))
    present = (name for name in _COLUMNS if row.get(name) is not None)
    key = column or next(filled, next(present, None))
    empty = [name for name in ([column] if column else _COLUMNS) if name in row]
    if empty and (key is None or row[key] is None):
        return BadRecord(f"{place}: {' and '.join(empty)} is null, so there is no document; {_WAY_OUT}")
    if key is None or key not in row:
        wanted = column or ", ".join(_COLUMNS)
        return BadRecord(
            f"{place} has keys {sorted(row)[:8]} but none of {wanted}; set corpus.column or mend it"
        )
    content = _content(row[key], is_chat=key in _CHATS or bool(column))
    if isinstance(content, BadRecord):
        return BadRecord(f"{place} cannot be read: {key}{content}; {_WAY_OUT}")
    if content and isinstance(content, list) and isinstance(content[0], int):
        content = _attended(content, row.get("attention_mask"))
        if content is None:
            return BadRecord(f"{place} has an attention_mask of another length than {key}; {_WAY_OUT}")
    named = row.get(id_column) if id_column else None
    is_messages = isinstance(content, list) and bool(content) and isinstance(content[0], dict)
    tools = _from_json(row.get("tools")) if is_messages else None
    tools = tools if isinstance(tools, list) and tools else None
    record = Record(place, fallback if named is None else str(named), content, tools)  # type: ignore[arg-type]
    if not _is_unicode(record):
        return BadRecord(f"{place} holds half of a surrogate pair, which is no Unicode text; {_WAY_OUT}")
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


_CHATS = ("messages", "conversation", "conversations")
_BESIDE = ("attention_mask", "tools")


def _from_json(value: Any) -> Any:
    """The list that a string spells in JSON; any other value as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    parsed = _parsed(value, "")
    return value if isinstance(parsed, BadRecord) else parsed


def _attended(ids: list[int], mask: Any) -> list[int] | None:
    """The ids that are no padding; None where the mask does not belong to them."""
    if mask is None:
        return ids
    if not isinstance(mask, list) or len(mask) != len(ids):
        return None
    return [token for token, is_real in zip(ids, mask, strict=True) if is_real]


def _content(value: Any, *, is_chat: bool) -> str | list[Message] | list[int] | BadRecord:
    """Text, messages or ids; a `BadRecord` says what is wrong, to be put behind the column's name."""
    spelled = _from_json(value) if is_chat else value
    if isinstance(spelled, list) and spelled and all(isinstance(item, dict) for item in spelled):
        value = spelled
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        return BadRecord(f" is {type(value).__name__}, neither text, messages (role, content) nor ids")
    if not value:
        return BadRecord(" is an empty list, neither text, messages (role, content) nor ids")
    if all(isinstance(item, int) and not isinstance(item, bool) for item in value):
        return value
    messages = []
    for number, item in enumerate(value):
        message = _message(item)
        if isinstance(message, str):
            return BadRecord(f"[{number}]{message}, neither text, messages (role, content) nor ids")
        messages.append(message)
    return messages


def _message(item: Any) -> Message | str:
    """One message as the template is given it, with all of its fields that are not null; or what is wrong."""
    if not isinstance(item, dict):
        return f" is {type(item).__name__}"
    role, content = item.get("role", item.get("from")), item.get("content", item.get("value"))
    if not isinstance(role, str):
        return f".role is {type(role).__name__}"
    other = {k: v for k, v in item.items() if v is not None and k not in ("role", "from", "content", "value")}
    if content is None and not other:
        return ".content is null"
    if isinstance(content, list):
        for place, part in enumerate(content):
            if not isinstance(part, dict) or not isinstance(part.get("text"), str):
                kind = part.get("type") if isinstance(part, dict) else type(part).__name__
                return f".content[{place}] is {kind!r}, and only parts of text are read"
        content = [{k: v for k, v in part.items() if v is not None} for part in content]
    elif content is not None and not isinstance(content, str):
        return f".content is {type(content).__name__}"
    return {"role": _ROLES.get(role, role), "content": content, **other}
