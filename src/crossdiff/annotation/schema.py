"""Reply schemas, and the check of replies: servers need not enforce numbers or completeness."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from crossdiff.taxonomy.scheme import OTHER, UNINTERPRETABLE

MAX_LABEL, MAX_DESCRIPTION = 120, 600
"""Most characters of a label and a description."""

Problem = Literal["refused", "truncated", "invalid"]


@dataclass(frozen=True)
class Unreadable:
    """A reply without an answer: its state and the problem."""

    state: Problem
    problem: str


@dataclass(frozen=True)
class Described:
    """One vote: a model's label, description and category of a latent."""

    label: str
    description: str
    category: str
    evidence: tuple[int, ...]
    confidence: Literal[1, 2, 3, 4, 5]


def describe_schema(categories: Sequence[str]) -> dict[str, Any]:
    """JSON schema of a vote; numbers are enums because servers do not enforce bounds."""
    properties = {
        "label": {"type": "string"},
        "description": {"type": "string"},
        "category": {"type": "string", "enum": [*categories, OTHER, UNINTERPRETABLE]},
        "evidence": {"type": "array", "items": {"type": "integer"}},
        "confidence": {"type": "integer", "enum": [1, 2, 3, 4, 5]},
    }
    return object_schema(properties)


def matches_schema() -> dict[str, Any]:
    """JSON schema of a detection or fuzz answer."""
    return object_schema({"matches": {"type": "array", "items": {"type": "integer"}}})


def intruder_schema(n_documents: int) -> dict[str, Any]:
    """JSON schema of an intruder answer."""
    return object_schema({"intruder": {"type": "integer", "enum": list(range(n_documents))}})


def shown_schema() -> dict[str, Any]:
    """JSON schema of a judgement."""
    return object_schema({"shown": {"type": "boolean"}})


def object_schema(properties: Mapping[str, Any]) -> dict[str, Any]:
    """JSON schema of an object that has exactly these properties."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def read_message(message: Mapping[str, Any]) -> dict[str, Any] | Unreadable:
    """The JSON object in a raw message, or what is wrong with the message."""
    stop_reason = message.get("stop_reason")
    if stop_reason == "refusal":
        return Unreadable("refused", "the model refused")
    if stop_reason in ("max_tokens", "model_context_window_exceeded"):
        return Unreadable("truncated", f"it was cut off ({stop_reason})")
    text = text_of(message)
    if not text:
        return Unreadable("invalid", "it has no text")
    start, end = text.find("{"), text.rfind("}")
    if start < 0:
        return Unreadable("invalid", "it holds no JSON object")
    try:
        answer = json.loads(text[start : end + 1])
    except (ValueError, RecursionError) as error:  # ValueError also for an integer with too many digits
        return Unreadable("invalid", f"its JSON is broken ({str(error)[:80]})")
    return answer if isinstance(answer, dict) else Unreadable("invalid", "its JSON is no object")


def text_of(message: Mapping[str, Any]) -> str:
    """The joined text blocks of a raw message, without its other content."""
    content = message.get("content")
    blocks = [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
    texts = [block.get("text") for block in blocks if block.get("type") == "text"]
    return "".join(text for text in texts if isinstance(text, str))


def read_described(
    message: Mapping[str, Any], *, categories: Sequence[str], n_examples: int
) -> Described | Unreadable:
    """The vote in a raw message."""
    answer = read_message(message)
    if isinstance(answer, Unreadable):
        return answer
    label, description, category = (answer.get(name) for name in ("label", "description", "category"))
    if not isinstance(label, str) or not label.strip() or not isinstance(description, str):
        return Unreadable("invalid", "label and description must be non-empty texts")
    if category not in [*categories, OTHER, UNINTERPRETABLE]:
        return Unreadable("invalid", f"{str(category)[:40]!r} is no category of the list")
    confidence = answer.get("confidence")
    if not _is_integer(confidence) or confidence not in range(1, 6):
        return Unreadable("invalid", "confidence must be an integer from 1 to 5")
    evidence = _indices(answer.get("evidence"), n_examples)
    if isinstance(evidence, Unreadable):
        return evidence
    return Described(
        one_line(label)[:MAX_LABEL],
        one_line(description)[:MAX_DESCRIPTION],
        str(category),
        evidence,
        cast(Literal[1, 2, 3, 4, 5], confidence),
    )


def read_matches(message: Mapping[str, Any], *, n_documents: int) -> tuple[int, ...] | Unreadable:
    """The indices of a detection or fuzz answer."""
    answer = read_message(message)
    return answer if isinstance(answer, Unreadable) else _indices(answer.get("matches"), n_documents)


def read_intruder(message: Mapping[str, Any], *, n_documents: int) -> int | Unreadable:
    """The index of an intruder answer."""
    answer = read_message(message)
    if isinstance(answer, Unreadable):
        return answer
    index = answer.get("intruder")
    if not _is_integer(index) or index not in range(n_documents):
        return Unreadable("invalid", f"intruder must be an index below {n_documents}")
    return int(cast(int, index))


def read_shown(message: Mapping[str, Any]) -> bool | Unreadable:
    """The verdict of a judgement."""
    answer = read_message(message)
    if isinstance(answer, Unreadable):
        return answer
    shown = answer.get("shown")
    return shown if isinstance(shown, bool) else Unreadable("invalid", "shown must be true or false")


def _indices(value: Any, size: int) -> tuple[int, ...] | Unreadable:
    if not isinstance(value, list) or not all(_is_integer(item) for item in value):
        return Unreadable("invalid", "indices must be a list of integers")
    return tuple(sorted({item for item in value if 0 <= item < size}))


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def one_line(text: str) -> str:
    """A model's text as one printable line."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
