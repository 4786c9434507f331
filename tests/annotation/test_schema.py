"""Our own reading of replies: what the wire does not enforce."""

from __future__ import annotations

import json
from typing import Any

import pytest

from crossdiff.annotation.schema import (
    Described,
    Unreadable,
    describe_schema,
    read_described,
    read_intruder,
    read_matches,
    read_message,
)

GOOD = {"label": "a", "description": "b", "category": "x", "evidence": [1, 0, 1, 9], "confidence": 3}


def message(answer: Any, *, stop: str = "end_turn", kind: str = "text") -> dict[str, Any]:
    text = answer if isinstance(answer, str) else json.dumps(answer)
    return {
        "stop_reason": stop,
        "content": [{"type": "thinking", "thinking": "{}"}, {"type": kind, "text": text}],
    }


def described(answer: Any, **changes: Any) -> Described | Unreadable:
    return read_described(message(answer, **changes), categories=["x", "y"], n_examples=3)


def test_a_good_answer_is_read_and_evidence_outside_the_examples_dropped() -> None:
    assert described(GOOD) == Described("a", "b", "x", (0, 1), 3)
    assert described("Sure!\n```json\n" + json.dumps(GOOD) + "\n```") == described(GOOD)


@pytest.mark.parametrize(
    "change",
    [
        {"category": "z"}, {"category": None}, {"category": ["x"]}, {"confidence": 0}, {"confidence": 6},
        {"confidence": "3"},
        {"confidence": True}, {"label": ""}, {"label": 7}, {"description": None}, {"evidence": "0"},
        {"evidence": [1.5]},
    ],
    ids=str,
)  # fmt: skip
def test_off_schema_is_invalid(change) -> None:
    found = described(GOOD | change)
    assert isinstance(found, Unreadable)
    assert found.state == "invalid"


@pytest.mark.parametrize("text", ["", "no json", "{", '{"label": "a', "[1]", "{" * 5000, '{"a":' * 2000])
def test_broken_json_is_invalid_and_never_an_exception(text: str) -> None:
    found = described(text)
    assert isinstance(found, Unreadable)
    assert found.state == "invalid"


def test_the_stop_reason_comes_first() -> None:
    assert described(GOOD, stop="refusal") == Unreadable("refused", "the model refused")
    for stop in ("max_tokens", "model_context_window_exceeded"):
        found = described(GOOD, stop=stop)
        assert isinstance(found, Unreadable)
        assert found.state == "truncated"
    assert read_message({"stop_reason": "refusal", "content": None}) == Unreadable(
        "refused", "the model refused"
    )


def test_labels_become_one_printable_line_of_bounded_length() -> None:
    found = described(GOOD | {"label": "a\n\u202eb\x00c" + "x" * 500})
    assert isinstance(found, Described)
    assert found.label.isprintable()
    assert len(found.label) <= 120


def test_indices_of_scores() -> None:
    assert read_matches(message({"matches": [2, 0, 7]}), n_documents=3) == (0, 2)
    assert read_matches(message({"matches": []}), n_documents=3) == ()
    assert isinstance(read_matches(message({"matches": None}), n_documents=3), Unreadable)
    assert read_intruder(message({"intruder": 2}), n_documents=3) == 2
    assert isinstance(read_intruder(message({"intruder": 3}), n_documents=3), Unreadable)
    assert isinstance(read_intruder(message({"intruder": True}), n_documents=3), Unreadable)


def test_the_schema_offers_the_categories_and_the_two_ways_out() -> None:
    properties = describe_schema(["x"])["properties"]
    assert properties["category"]["enum"] == ["x", "other", "uninterpretable"]
    assert properties["confidence"]["enum"] == [1, 2, 3, 4, 5]
