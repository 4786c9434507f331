from __future__ import annotations

import random

import pandas as pd
import pytest

from crossdiff.organisms.documents import chat, complete_and_broken, label_check, preference, web_document
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


def row(latent: int, category: str | None, role: str = "exclusive_tuned", pair: str = "p") -> dict:
    return {"pair": pair, "latent": latent, "role": role, "category": category}


def table(documents: dict[int, str]) -> pd.DataFrame:
    rows = [
        {"latent": latent, "document_id": name, "subset": "explain", "source": "top"}
        for latent, names in documents.items()
        for name in names
    ]
    return pd.DataFrame([*rows, {"latent": 1, "document_id": "z", "subset": "score", "source": "top"}])


def test_labelled_and_right_by_hand() -> None:
    """Latent 1: aab -> right; 2: ab is a tie -> right; 3: bbb said a -> wrong; 4 and 5 have no category."""
    documents = {"a": "x", "b": "y", "z": "y"}
    examples = {"p": table({1: "aab", 2: "ab", 3: "bbb", 4: "aaa", 5: "a", 6: "a"})}
    rows = [row(1, "x"), row(2, "y"), row(3, "x"), row(4, "other"), row(5, None)]
    rows += [row(6, "x", role="exclusive_base"), row(7, "x", role="control_shared")]
    found = label_check(rows, examples, documents)
    assert found["exclusive_tuned"] == found["p"]
    assert found["p"] == {
        "n": 5, "n_labelled": 3, "n_right": 2, "share_labelled": 3 / 5, "share_right": 2 / 3
    }  # fmt: skip
    assert found["exclusive"]["n"] == 6
    assert found["exclusive"]["n_right"] == 3


def test_without_latents_shares_are_unknown() -> None:
    found = label_check([], {"p": table({})}, {})
    assert found["exclusive"] == {
        "n": 0, "n_labelled": 0, "n_right": 0, "share_labelled": None, "share_right": None
    }  # fmt: skip
