"""Ids are those of `apply_chat_template`, kinds partition the text, BOS is BOS wherever it stands."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crossdiff.data.row_content import BadRecord, Record
from crossdiff.data.tokenise import Tokenised, tokenise
from crossdiff.data.tokens import TokenKind
from crossdiff.models.chat import pinned_date, render
from tests.model_folders import make_tokenizer

TURN = "{{ '<start_of_turn>' + m['role'] + '\n' }}"
LOOP, END = "{% for m in messages %}", "{% endfor %}"
BODY = "{{ m['content'] }}"
LAST = "{{ m['content'].split('</think>')[-1] }}"
TEMPLATES = {
    "plain": LOOP + TURN + "{{ m['content'] }}<end_of_turn>\n" + END,
    "trimmed": LOOP + TURN + "{{ m['content'] | trim }}<end_of_turn>\n" + END,
    "bos per turn": LOOP + "{% if m['role'] == 'user' %}{{ bos_token }}{% endif %}" + TURN + BODY + END,
    "text before bos": "date: {{ strftime_now('%d %b %Y') }}\n{{ bos_token }}" + LOOP + TURN + BODY + END,
    "drops thoughts": "{{ bos_token }}" + LOOP + TURN + LAST + "<end_of_turn>" + END,
    "writes twice": LOOP + TURN + "{{ m['content'] }}|{{ m['content'] }}" + END,
    "last message alone": LOOP + "{% if loop.last %}" + TURN + "{{ m['content'] }}{% endif %}" + END,
    "marks thoughts": LOOP + TURN + "{% if '</think>' in m['content'] %}[thought]" + LAST
    + "{% else %}{{ m['content'] }}{% endif %}<end_of_turn>" + END,
}  # fmt: skip
PIECES = [
    "user",
    "assistant",
    "\n",
    " the cat ",
    "<think>why</think>",
    "model\n",
    "x",
    "你",
    "date: ",
    "|",
    "",
]
CONTENTS = st.lists(st.sampled_from(PIECES), max_size=4).map("".join)


def chat(*contents: str) -> list[dict[str, Any]]:
    return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(contents)]


def one(tokenizer: Any, content: Any, **options: Any) -> Tokenised:
    made = tokenise(tokenizer, [Record("f:1", "f:1", content, **options)], context=4096)[0]
    assert isinstance(made, Tokenised), made
    return made


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(contents=st.lists(CONTENTS, min_size=1, max_size=4))
def test_ids_kinds_and_contents_of_any_template(name: str, contents: list[str]) -> None:
    tokenizer = make_tokenizer(template=TEMPLATES[name])
    messages = chat(*contents)
    with pinned_date():
        expected = tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]
    made, bos = one(tokenizer, messages), tokenizer.bos_token_id
    added = [] if "bos_token" in TEMPLATES[name] and bos in expected else [bos]
    assert made.ids.tolist() == [*added, *expected]
    assert ((made.ids == bos) == (made.kind == TokenKind.BOS)).all()
    rendered = render(tokenizer, messages)
    spans = rendered.contents
    assert all(a <= b <= c <= d for (a, b), (c, d) in pairwise(spans))
    assert all(0 <= start <= stop <= len(rendered.text) for start, stop in spans)
    said = "".join(rendered.text[start:stop] for start, stop in spans)
    kept = {
        "plain": contents,
        "bos per turn": contents,
        "text before bos": contents,
        "trimmed": [c.strip() for c in contents],
        "drops thoughts": [c.split("</think>")[-1] for c in contents],
        "marks thoughts": [c.split("</think>")[-1] for c in contents],
        "writes twice": [c + c for c in contents],
        "last message alone": contents[-1:],
    }[name]
    assert rendered.n_not_located == 0
    assert said == "".join(kept)


def test_fields_of_messages_reach_the_template() -> None:
    tokenizer = make_tokenizer(
        template=LOOP + "[{{ m['role'] }}]{{ m.get('reasoning_content') or '' }}{{ m['content'] or '' }}"
        "{% for t in m.tool_calls or [] %}<call>{{ t.function.name }}{{ t.function.arguments | tojson }}"
        "{% endfor %}"
        + END + "{% for t in tools or [] %}{{ t.name }}{% endfor %}"
    )  # fmt: skip
    call = {"function": {"name": "search", "arguments": {"q": "cats"}}}
    messages = [
        {"role": "user", "content": "who"},
        {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [call]},
        {"role": "tool", "content": "3"},
    ]
    tools = [{"name": "search"}]
    text = render(tokenizer, messages, tools).text
    assert text == tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)
    spans = render(tokenizer, messages, tools).contents
    assert [text[a:b] for a, b in spans] == ["who", "hm", "cats", "3"]


def test_parts_are_joined_for_a_template_of_strings_and_given_to_one_of_parts() -> None:
    parts = [
        {"role": "user", "content": [{"type": "text", "text": "the cat"}, {"type": "text", "text": " sat"}]}
    ]
    of_strings = make_tokenizer(template=TEMPLATES["plain"])
    assert render(of_strings, parts).text == render(of_strings, chat("the cat sat")).text
    printed = make_tokenizer(template=LOOP + "{{ m['content'] }}" + END)
    assert render(printed, parts).text == "the cat sat"
    of_parts = make_tokenizer(template=LOOP + "{% for p in m['content'] %}<{{ p.text }}>{% endfor %}" + END)
    rendered = render(of_parts, parts)
    assert [rendered.text[a:b] for a, b in rendered.contents] == ["the cat", " sat"]


def test_a_template_that_fails_in_any_way_is_a_bad_record() -> None:
    tokenizer = make_tokenizer(template="{{ 1 // (messages | length - 2) }}" + TEMPLATES["plain"])
    good, bad = tokenise(
        tokenizer, [Record("f:1", "a", chat("x")), Record("f:2", "b", chat("x", "y"))], context=64
    )
    assert isinstance(good, Tokenised)
    assert isinstance(bad, BadRecord)
    assert "f:2: the chat template refuses" in str(bad)
    assert "ZeroDivisionError" in str(bad)


def test_a_bos_that_is_a_turn_marker_opens_no_plain_text() -> None:
    tokenizer = make_tokenizer(template=LOOP + "{{ bos_token + m['role'] + m['content'] }}" + END)
    bos = tokenizer.bos_token_id
    assert bos not in one(tokenizer, "the cat").ids
    assert (one(tokenizer, chat("a", "b")).ids == bos).sum() == 2
    assert one(make_tokenizer(), "the cat").ids[0] == bos


def test_bos_inside_text_and_ids_is_bos() -> None:
    tokenizer = make_tokenizer()
    bos = tokenizer.bos_token_id
    for content in ("the<bos> cat", [bos, 20, 21, bos, 22]):
        made = one(tokenizer, content)
        assert ((made.ids == bos) == (made.kind == TokenKind.BOS)).all()
        assert (made.kind == TokenKind.BOS).sum() == 2


def test_a_long_line_is_cut_before_it_is_tokenised() -> None:
    tokenizer = make_tokenizer()
    text = " the cat sat on the mat" * 3000
    whole = tokenizer(text, add_special_tokens=False)["input_ids"]
    short = tokenise(tokenizer, [Record("f:1", "a", text)], context=128)[0]
    assert isinstance(short, Tokenised)
    assert np.array_equal(short.ids[1:], whole[:127])
    assert short.n_cut == pytest.approx(len(whole) - 127, rel=0.01)
