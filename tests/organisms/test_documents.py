import random

import pytest

from crossdiff.organisms.documents import chat, complete_and_broken, preference, web_document
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
