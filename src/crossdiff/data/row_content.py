"""The document in one row (text, chat messages or token ids), or the row's problem."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, cast

from crossdiff.models.chat import Message

_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
WAY_OUT = "mend it, or count and skip such lines with corpus.skip_bad=true"


class BadRecord(ValueError):
    """A line or row that cannot be used; its text has place, rule and way out."""


@dataclass(frozen=True)
class Record:
    """One document before tokenisation: text, chat messages or ready token ids."""

    place: str
    """File and line, or dataset and row, for messages."""
    id: str
    content: str | list[Message] | list[int]
    tools: list[Any] | None = None
    """Tools for the chat template."""

    def digest(self) -> bytes:
        """16 bytes of a hash of the content."""
        content = self.content if self.tools is None else [self.content, self.tools]
        text = content if isinstance(content, str) else json.dumps(content, sort_keys=True, default=str)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]


def parsed(line: str, place: str) -> Any:
    """The value of a line of JSON, or a `BadRecord`."""
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        return BadRecord(f"{place} is not JSON ({error.msg} at column {error.colno}); {WAY_OUT}")
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, lists inside lists
        return BadRecord(f"{place} is JSON that Python refuses ({error}); {WAY_OUT}")


CHATS = ("messages", "conversation", "conversations")
COLUMNS = ("text", *CHATS, "input_ids")
BESIDE = ("attention_mask", "tools")


def from_json(value: Any) -> Any:
    """The list in a JSON string; other values unchanged."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    spelled = parsed(value, "")
    return value if isinstance(spelled, BadRecord) else spelled


def attended(ids: list[int], mask: Any) -> list[int] | BadRecord:
    """The ids without padding; a `BadRecord`, to follow the row's place, for a mask that is not 0 and 1.

    Masks with other numbers (segments of packed rows, penalties) have another meaning.
    """
    if mask is None:
        return ids
    if not isinstance(mask, list) or len(mask) != len(ids):
        return BadRecord(" has an attention_mask of another length than its ids")
    for place, value in enumerate(mask):
        if value not in (0, 1):
            return BadRecord(
                f" has an attention_mask with {value!r} at place {place}, and only 1 (a token) and "
                "0 (padding) are read"
            )
    return [token for token, is_real in zip(ids, mask, strict=True) if is_real]


def content_of(value: Any, *, is_chat: bool) -> str | list[Message] | list[int] | BadRecord:
    """Text, messages or ids; else a `BadRecord`, to follow the column's name."""
    spelled = from_json(value) if is_chat else value
    if isinstance(spelled, list) and spelled and all(isinstance(item, dict) for item in spelled):
        value = spelled
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        return BadRecord(f" is {type(value).__name__}, neither text, messages (role, content) nor ids")
    if not value:
        return BadRecord(" is an empty list, neither text, messages (role, content) nor ids")
    no_ids = [place for place, item in enumerate(value) if type(item) is not int]
    if not no_ids:
        return value
    if no_ids[0] > 0:
        kind = type(value[no_ids[0]]).__name__
        return BadRecord(f"[{no_ids[0]}] is {kind} among token ids, which are whole numbers")
    messages = []
    for number, item in enumerate(value):
        message = _message(item)
        if isinstance(message, str):
            return BadRecord(f"[{number}]{message}, neither text, messages (role, content) nor ids")
        messages.append(message)
    return messages


def _message(item: Any) -> Message | str:
    """One message for the template, with all fields that are not null; or its problem."""
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


def record_of(
    row: Any, place: str, fallback: str, *, column: str | None, id_column: str | None
) -> Record | BadRecord:
    """The document of one row; `fallback` is its id where `id_column` gives none."""
    if not isinstance(row, dict):
        return BadRecord(
            f"{place} is {type(row).__name__}, and a document is an object with text or messages; {WAY_OUT}"
        )
    filled = (name for name in COLUMNS if row.get(name) not in (None, "", []))
    present = (name for name in COLUMNS if row.get(name) is not None)
    key = column or next(filled, next(present, None))
    empty = [name for name in ([column] if column else COLUMNS) if name in row]
    if empty and (key is None or row[key] is None):
        return BadRecord(f"{place}: {' and '.join(empty)} is null, so there is no document; {WAY_OUT}")
    if key is None or key not in row:
        wanted = column or ", ".join(COLUMNS)
        return BadRecord(
            f"{place} has keys {sorted(row)[:8]} but none of {wanted}; name the column "
            "with corpus.column=..., or write each row as text or messages"
        )
    content = content_of(row[key], is_chat=key in CHATS or bool(column))
    if isinstance(content, BadRecord):
        return BadRecord(f"{place} cannot be read: {key}{content}; {WAY_OUT}")
    if content and isinstance(content, list) and isinstance(content[0], int):
        content = attended(cast("list[int]", content), row.get("attention_mask"))
        if isinstance(content, BadRecord):
            return BadRecord(f"{place}{content}; {WAY_OUT}")
    named = row.get(id_column) if id_column else None
    is_messages = isinstance(content, list) and bool(content) and isinstance(content[0], dict)
    tools = from_json(row.get("tools")) if is_messages else None
    tools = tools if isinstance(tools, list) and tools else None
    record = Record(place, fallback if named is None else str(named), content, tools)  # type: ignore[arg-type]
    if not _is_unicode(record):
        return BadRecord(f"{place} has half of a surrogate pair, which is no Unicode text; {WAY_OUT}")
    return record


def _is_unicode(record: Record) -> bool:
    """Whether all strings are Unicode; JSON can spell half of a surrogate pair (a cut emoji)."""
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
