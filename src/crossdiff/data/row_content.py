"""What one value of a row holds: text, chat messages or token ids; or what is wrong with it."""

from __future__ import annotations

import json
from typing import Any

from crossdiff.models.chat import Message

_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
WAY_OUT = "mend it, or count and skip such lines with corpus.skip_bad=true"


class BadRecord(ValueError):
    """A line or row that cannot be used; names its place, the rule and the way out."""


def parsed(line: str, place: str) -> Any:
    """The value of a line of JSON, or what is wrong with it."""
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        return BadRecord(f"{place} is not JSON ({error.msg} at column {error.colno}); {WAY_OUT}")
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, lists inside lists
        return BadRecord(f"{place} is JSON that Python refuses ({error}); {WAY_OUT}")


CHATS = ("messages", "conversation", "conversations")
BESIDE = ("attention_mask", "tools")


def from_json(value: Any) -> Any:
    """The list that a string spells in JSON; any other value as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    spelled = parsed(value, "")
    return value if isinstance(spelled, BadRecord) else spelled


def attended(ids: list[int], mask: Any) -> list[int] | None:
    """The ids that are no padding; None where the mask does not belong to them."""
    if mask is None:
        return ids
    if not isinstance(mask, list) or len(mask) != len(ids):
        return None
    return [token for token, is_real in zip(ids, mask, strict=True) if is_real]


def content_of(value: Any, *, is_chat: bool) -> str | list[Message] | list[int] | BadRecord:
    """Text, messages or ids; a `BadRecord` says what is wrong, to be put behind the column's name."""
    spelled = from_json(value) if is_chat else value
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
