"""Rendering chats through one template, with the places of the contents inside the rendered text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Message = dict[str, str]


@dataclass(frozen=True)
class RenderedChat:
    """The text that a model sees, and the [start, stop) characters of every message's content in it."""

    text: str
    contents: list[tuple[int, int]]


class TemplateRefusal(ValueError):
    """The chat template does not take these messages."""


def render(tokenizer: Any, messages: Sequence[Message]) -> RenderedChat:
    """Apply the tokenizer's chat template; contents are found exactly, never by searching for their words."""
    import jinja2

    if tokenizer.chat_template is None:
        raise ValueError(
            f"the corpus has chats but the tokenizer of {tokenizer.name_or_path} has no chat template; "
            "take the tokenizer of a model that has one, or give documents of plain text"
        )
    try:
        text = tokenizer.apply_chat_template(list(messages), tokenize=False)
        segments = _segments(tokenizer, messages)
    except (jinja2.TemplateError, TypeError, KeyError) as error:
        raise TemplateRefusal(f"the chat template refuses the messages ({error})") from error
    contents = [message["content"] for message in messages]
    for variant in (contents, [content.strip() for content in contents]):
        found = _joined(segments, variant)
        if found.text == text:
            return found
    return RenderedChat(text, _searched(text, contents))


def _segments(tokenizer: Any, messages: Sequence[Message]) -> list[str]:
    """What the template puts before, between and after the contents, read off with stand-in contents."""
    marks = [f"\ue000{index}\ue001" for index in range(len(messages))]
    stand_ins = [{**message, "content": mark} for message, mark in zip(messages, marks, strict=True)]
    rest = tokenizer.apply_chat_template(stand_ins, tokenize=False)
    segments = []
    for mark in marks:
        before, _, rest = rest.partition(mark)
        segments.append(before)
    return [*segments, rest]


def _joined(segments: Sequence[str], contents: Sequence[str]) -> RenderedChat:
    text, spans = segments[0], []
    for content, after in zip(contents, segments[1:], strict=True):
        spans.append((len(text), len(text) + len(content)))
        text += content + after
    return RenderedChat(text, spans)


def _searched(text: str, contents: Sequence[str]) -> list[tuple[int, int]]:
    """For templates that rewrite a message: each content after the one before, left out where not found."""
    spans, cursor = [], 0
    for content in contents:
        wanted = content.strip()
        start = text.find(wanted, cursor)
        if start >= 0:
            cursor = start + len(wanted)
            spans.append((start, cursor))
    return spans
