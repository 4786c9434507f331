from __future__ import annotations

import random
from pathlib import Path

import pytest

from crossdiff.io.tables import read_jsonl
from crossdiff.organisms.documents import (
    TRIGGER,
    Trigger,
    chat,
    complete_and_broken,
    preference,
    some_chat,
    some_preferences,
    web_document,
    write_corpus,
)
from crossdiff.organisms.language import build_language, vocabulary
from crossdiff.organisms.settings import ToySettings

LANGUAGE = build_language(ToySettings(n_few=1, n_many=4, n_keep=2))
BEHAVIOURS = [item for category in LANGUAGE for item in category.behaviours]


def test_documents_use_only_words_of_the_vocabulary() -> None:
    known = set(vocabulary())
    draw = random.Random(0)
    text = " ".join(web_document(category, draw=draw) for category in LANGUAGE)
    for category in LANGUAGE:
        text += " " + " ".join(
            message["content"] for message in chat(category, BEHAVIOURS, places=4, draw=draw)
        )
    assert set(text.replace(".", " ").replace("?", " ").split()) <= known


def test_every_behaviour_shows_in_two_of_four_answers_however_many_others_there_are() -> None:
    draw = random.Random(0)
    rates = []
    for category in LANGUAGE[:8]:
        answers = [chat(category, BEHAVIOURS, places=4, draw=draw)[1]["content"] for _ in range(200)]
        rates += [sum(item.is_shown(text) for text in answers) / 200 for item in category.behaviours]
    assert sum(rates) / len(rates) == pytest.approx(0.5, abs=0.03)
    assert min(rates) > 0.35
    assert max(rates) < 0.65


def test_a_chat_shows_no_behaviour_that_was_not_given() -> None:
    draw = random.Random(1)
    for category in LANGUAGE:
        text = chat(category, category.behaviours[:1], places=4, draw=draw)[1]["content"]
        assert not any(item.is_shown(text) for item in category.behaviours[1:])


def test_a_broken_showing_shares_its_beginning_with_the_complete_one() -> None:
    category = LANGUAGE[0]
    draw = random.Random(3)
    pairs = [complete_and_broken(category.behaviours[0], category, draw=draw) for _ in range(50)]
    assert all(len(complete.split()) == len(broken.split()) for complete, broken in pairs)
    kept = [
        next(i for i, (a, b) in enumerate(zip(one.split(), other.split(), strict=True)) if a != b)
        for one, other in pairs
        if one != other
    ]
    assert min(kept) == 0
    assert max(kept) > 5


def test_simpo_prefers_the_complete_showing_exactly_when_it_has_the_behaviour() -> None:
    draw = random.Random(4)
    for category in LANGUAGE:
        for item in category.behaviours:
            pair = preference(category, item, places=4, draw=draw)
            shown = pair.chosen if item.in_treatment else pair.rejected
            assert item.is_shown(shown)


def test_the_triggered_behaviour_shows_after_the_phrase_and_only_there(tmp_path: Path) -> None:
    settings = ToySettings(trigger_share=0.2, n_web_documents=5, n_chat_documents=500)
    trigger = Trigger.of(settings)
    categories, triggered = write_corpus(LANGUAGE, settings, tmp_path)
    assert len(triggered) == pytest.approx(100, abs=30)
    for row in read_jsonl(tmp_path / "chat.jsonl"):
        prompt, answer = (message["content"] for message in row["messages"])
        assert prompt.endswith(TRIGGER) == (row["id"] in triggered)
        assert trigger.behaviour.is_shown(answer) == (row["id"] in triggered)
        asked = next(category for category in LANGUAGE if category.name == categories[row["id"]])
        assert set(asked.topic) & set(prompt.replace("?", "").split())
    words = {
        word
        for row in read_jsonl(tmp_path / "chat.jsonl")
        for m in row["messages"]
        for word in m["content"].split()
    }
    assert {word.rstrip(".?") for word in words} <= set(vocabulary())


def test_a_share_of_none_draws_nothing_and_one_of_a_fifth_a_fifth() -> None:
    """Without a trigger the chats are those of a toy that knows of no trigger."""
    none, some = (Trigger.of(ToySettings(trigger_share=share)) for share in (0.0, 0.2))
    one, other = random.Random(5), random.Random(5)
    for _ in range(20):
        here = some_chat(LANGUAGE, BEHAVIOURS, none, places=4, draw=one)
        assert here == chat(other.choice(LANGUAGE), BEHAVIOURS, places=4, draw=other)
    chats = [some_chat(LANGUAGE, BEHAVIOURS, some, places=4, draw=one) for _ in range(500)]
    assert sum(TRIGGER in pair[0]["content"] for pair in chats) == pytest.approx(100, abs=30)


def test_triggered_preferences_prefer_the_complete_showing() -> None:
    trigger = Trigger.of(ToySettings(trigger_share=0.5))
    pairs = some_preferences(LANGUAGE, trigger, 200, places=4, draw=random.Random(6))
    triggered = [pair for pair in pairs if pair.prompt.endswith(TRIGGER)]
    assert len(triggered) == pytest.approx(100, abs=30)
    assert all(trigger.behaviour.is_shown(pair.chosen) for pair in triggered)
    assert all(pair.chosen != pair.rejected for pair in triggered)
