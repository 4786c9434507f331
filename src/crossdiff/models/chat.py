"""Rendering chats through one template, with the places of the messages' contents in the rendered text."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

Message = dict[str, Any]
TEMPLATE_DATE = datetime.date(2025, 1, 1)
"""The date that templates get for today, so that ids do not depend on the day."""
_REASONING = ("reasoning_content", "reasoning", "thinking")
_SHORTEST = 4
"""Least length of a run of characters of a rewritten content that counts as its text."""
_LONGEST_COMPARED = 4_000
"""Longest rewritten content that is compared by characters; all of a longer one counts as text."""


@dataclass(frozen=True)
class RenderedChat:
    """The text that a model sees, and the [start, stop) characters of the messages' contents."""

    text: str
    contents: list[tuple[int, int]]
    n_not_located: int = 0
    """Contents with an unknown place in the text."""


class _Pinned(datetime.datetime):
    @classmethod
    def now(cls, tz: Any = None) -> _Pinned:
        return cls(TEMPLATE_DATE.year, TEMPLATE_DATE.month, TEMPLATE_DATE.day, tzinfo=tz)


@contextmanager
def pinned_date() -> Iterator[None]:
    """While open, templates get `TEMPLATE_DATE` from `strftime_now`.

    The module's `datetime` is replaced, because transformers turns functions given to a template into text.
    """
    from transformers.utils import chat_template_utils

    module: Any = chat_template_utils
    original = module.datetime
    module.datetime = _Pinned
    try:
        yield
    finally:
        module.datetime = original


class TemplateRefusal(ValueError):
    """The chat template refuses these messages."""


def render(tokenizer: Any, messages: Sequence[Message], tools: Sequence[Any] | None = None) -> RenderedChat:
    """Apply the tokenizer's chat template, and locate the contents by rendering, not by searching.

    A unique mark replaces a content; the text around the mark is the template's. A content that changes the
    text around itself counts as not located.
    """
    if tokenizer.chat_template is None:
        raise ValueError(
            f"the corpus has chats but the tokenizer of {tokenizer.name_or_path} has no chat template; "
            "use the tokenizer of a model that has one, or give documents of plain text"
        )
    given = [dict(message) for message in messages]
    try:
        text = applied(tokenizer, given, tools)
    except TemplateRefusal:
        if not any(_is_parts(message.get("content")) for message in given):
            raise
        text = ""
    if any(_is_parts(m.get("content")) and (not text or str(m["content"]) in text) for m in given):
        # The template takes strings only: join the parts as other templates do.
        given = [{**m, "content": _joined_parts(m["content"])} for m in given]
        text = applied(tokenizer, given, tools)
    leaves = [(path, value) for path, value in _leaves(given) if value]
    spans = _at_once(tokenizer, given, tools, text, leaves)
    if spans is not None:
        return RenderedChat(text, spans)
    located = [_one(tokenizer, given, tools, text, path, value) for path, value in leaves]
    n_not_located = sum(part is None for part in located)
    return RenderedChat(text, sorted(s for part in located for s in part or []), n_not_located)


def applied(tokenizer: Any, messages: Sequence[Message], tools: Any = None, **options: Any) -> str:
    """The rendered text; `TemplateRefusal` for any exception of the template."""
    try:
        with pinned_date():
            return str(tokenizer.apply_chat_template(list(messages), tools=tools, tokenize=False, **options))
    except Exception as error:
        raise TemplateRefusal(
            f"the chat template refuses the messages ({type(error).__name__}: {error})"
        ) from error


def _is_parts(content: Any) -> bool:
    return isinstance(content, list)


def _joined_parts(content: Any) -> Any:
    return "".join(part["text"] for part in content) if _is_parts(content) else content


Path = tuple[Any, ...]


def _leaves(messages: Sequence[Message]) -> Iterator[tuple[Path, str]]:
    """(path, text) of contents, their text parts, reasoning, and arguments of tool calls."""
    for number, message in enumerate(messages):
        for key in (*_REASONING, "content"):
            value = message.get(key)
            if isinstance(value, str):
                yield (number, key), value
            elif isinstance(value, list):
                yield from (((number, key, i, "text"), part["text"]) for i, part in enumerate(value))
        for i, call in enumerate(message.get("tool_calls") or []):
            function = call.get("function") if isinstance(call, Mapping) else None
            if not isinstance(function, Mapping):
                continue
            arguments, path = function.get("arguments"), (number, "tool_calls", i, "function", "arguments")
            if isinstance(arguments, str):
                yield path, arguments
            elif isinstance(arguments, Mapping):
                yield from (((*path, name), v) for name, v in arguments.items() if isinstance(v, str))


def _replaced(messages: Sequence[Message], values: Mapping[Path, str]) -> list[Message]:
    changed = deepcopy(list(messages))
    for (*inner, last), value in values.items():
        place: Any = changed
        for key in inner:
            place = place[key]
        place[last] = value
    return changed


def _mark(number: int) -> str:
    return f"\ue000{number}\ue001"


def _at_once(
    tokenizer: Any, messages: Sequence[Message], tools: Any, text: str, leaves: Sequence[tuple[Path, str]]
) -> list[tuple[int, int]] | None:
    """Spans of all contents, where the template writes each once, as it is or stripped; else None."""
    marked = _replaced(messages, {path: _mark(n) for n, (path, _) in enumerate(leaves)})
    try:
        rest = applied(tokenizer, marked, tools)
    except TemplateRefusal:
        return None
    order = sorted(range(len(leaves)), key=lambda n: rest.find(_mark(n)))
    if any(rest.count(_mark(n)) != 1 for n in order):
        return None
    before: list[str] = []
    for n in order:
        segment, _, rest = rest.partition(_mark(n))
        before.append(segment)
    behind = [*before[1:], rest]
    if not text.startswith(before[0] if before else rest):
        return None
    place, spans = len(before[0]) if before else len(rest), []
    for n, segment in zip(order, behind, strict=bool(order)) if order else ():
        value = leaves[n][1]
        forms = (value, value.strip(), value.lstrip(), value.rstrip())
        form = next((form for form in forms if text.startswith(form + segment, place)), None)
        if form is None:
            return None
        spans.append((place, place + len(form)))
        place += len(form) + len(segment)
    return spans if place == len(text) else None


def _one(
    tokenizer: Any, messages: Sequence[Message], tools: Any, text: str, path: Path, value: str
) -> list[tuple[int, int]] | None:
    """Spans of one content, which the template may cut, rewrite, repeat or leave out; None if unknown."""
    mark = _mark(0)
    try:
        segments = applied(tokenizer, _replaced(messages, {path: mark}), tools).split(mark)
    except TemplateRefusal:
        return _from_its_end(tokenizer, messages, tools, text, path, value)
    if len(segments) == 1:
        return [] if segments[0] == text else None
    room = len(text) - sum(len(segment) for segment in segments)
    length, remainder = divmod(room, len(segments) - 1)
    if room < 0 or remainder:
        return _from_its_end(tokenizer, messages, tools, text, path, value)
    place, spans = len(segments[0]), []
    if not text.startswith(segments[0]):
        return _from_its_end(tokenizer, messages, tools, text, path, value)
    if len(segments) == 2 and text[place : place + length] not in value:
        by_end = _from_its_end(tokenizer, messages, tools, text, path, value)
        if by_end is not None:
            return by_end
    for segment in segments[1:]:
        if not text.startswith(segment, place + length):
            return _from_its_end(tokenizer, messages, tools, text, path, value)
        spans += _from_content(text, place, place + length, value)
        place += length + len(segment)
    return spans


def _from_its_end(
    tokenizer: Any, messages: Sequence[Message], tools: Any, text: str, path: Path, value: str
) -> list[tuple[int, int]] | None:
    """Spans of a content that the template reads, located by a mark after its end; None if unknown."""
    mark = _mark(0)
    for stripped in (value, value.rstrip()):
        try:
            before, marked, after = applied(
                tokenizer, _replaced(messages, {path: stripped + mark}), tools
            ).partition(mark)
        except TemplateRefusal:
            continue
        if marked and before + after == text:
            kept = 0
            while kept < min(len(stripped), len(before)) and _same(before[-1 - kept], stripped[-1 - kept]):
                kept += 1
            return [(len(before) - kept, len(before))] if kept else None
    return None


def _same(one: str, other: str) -> bool:
    """Whether two characters are one letter; a template may write contents in capitals."""
    return one == other or one.casefold() == other.casefold()


def _from_content(text: str, start: int, stop: int, value: str) -> list[tuple[int, int]]:
    """Spans of text[start:stop] that come from the content, even where the template rewrote it."""
    written = text[start:stop]
    if not written:
        return []
    if written in value or max(len(written), len(value)) > _LONGEST_COMPARED:
        return [(start, stop)]
    letters = [[letter.casefold() for letter in side] for side in (written, value)]
    blocks = SequenceMatcher(None, *letters, autojunk=False).get_matching_blocks()
    return [(start + block.a, start + block.a + block.size) for block in blocks if block.size >= _SHORTEST]
