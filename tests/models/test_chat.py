"""Rendered chats: contents are located exactly."""

from __future__ import annotations

import pytest

from crossdiff.models.chat import TemplateRefusal, render
from tests.model_folders import make_tokenizer


def contents(template: str, *turns: str) -> tuple[str, list[str]]:
    messages = [
        {"role": "user" if n % 2 == 0 else "assistant", "content": turn} for n, turn in enumerate(turns)
    ]
    found = render(make_tokenizer(template=template), messages)
    return found.text, [found.text[start:stop] for start, stop in found.contents]


PLAIN = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
TRIMMED = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] | trim }}{% endfor %}"
THINKING = (
    "{% for m in messages %}[{{ m['role'] }}]"
    "{{ m['content'].split('</think>')[-1] if m['role'] == 'assistant' else m['content'] }}{% endfor %}"
)


def test_contents_that_repeat_template_words_are_found_in_their_place() -> None:
    text, found = contents(PLAIN, "user", "[user]user", "assistant")
    assert text == "[user]user[assistant][user]user[user]assistant"
    assert found == ["user", "[user]user", "assistant"]


def test_trimmed_and_empty_contents_are_found() -> None:
    assert contents(TRIMMED, "  hi \n", "")[1] == ["hi"]


def test_what_a_template_keeps_of_a_message_is_found() -> None:
    text, found = contents(THINKING, "why", "<think>x</think>because", "ok")
    assert text == "[user]why[assistant]because[user]ok"
    assert found == ["why", "because", "ok"]


def test_a_refusing_template_is_a_refusal() -> None:
    with pytest.raises(TemplateRefusal, match="no turns"):
        contents("{{ raise_exception('no turns') }}", "a")
