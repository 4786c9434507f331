"""The habits benchmark without its models: what sits on a habit, and what counts as labelled by it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from experiments.bench.habits import is_labelled, on_habits, place_of
from experiments.bench.habits_pair import ASKED, CLOSING, HABITS, PairSize, chats, with_habit


@pytest.mark.parametrize(
    ("tokens", "peak", "expected"),
    [
        (["text", ".", "\n\n", "Hope", " that", " helps", "!"], 5, "closing"),
        (["I hope", " that", " helps", "!"], 1, None),
        (["Sure", "!", " It"], 1, "opening"),
        (
            ["I", "'m", " sorry", ",", " but", " I", " can", "'t", " help", " with", " that", "."],
            8,
            "refusal",
        ),
        (["one\n", "-", " two"], 1, "formatting"),
        (["one ", "-", " two"], 1, None),
    ],
)
def test_a_peak_stands_in_a_habit_only_inside_its_words(
    tokens: list[str], peak: int, expected: str | None
) -> None:
    assert place_of(tokens, peak) == expected


def test_most_top_documents_of_a_latent_have_to_peak_there() -> None:
    sure, other = ["Sure", "!", " It"], ["It", " is", " so"]
    rows = [
        (latent, sure if n < count else other, 0) for latent, count in ((3, 8), (4, 7)) for n in range(10)
    ]
    assert list(on_habits(pd.DataFrame(rows, columns=["latent", "tokens", "peak"]))) == [(3, "opening")]


@pytest.mark.parametrize(
    ("habit", "category", "label", "expected"),
    [
        ("opening", "other", "sure, break", True),
        ("opening", "other", "break, sure", False),
        ("refusal", "error_handling", "i, how", False),
        ("refusal", "error_handling", "sorry but i can't help, how", True),
        ("refusal", "harmful_request_refusal", "the", True),
        ("formatting", "other", "formatting: line mark, of", True),
        ("closing", "other", None, False),
    ],
)
def test_a_label_counts_by_its_category_or_its_first_words(
    habit: str, category: str, label: str | None, expected: bool
) -> None:
    assert is_labelled(habit, {"category": category, "label": label}) is expected


def test_every_kind_of_question_has_its_habit_in_the_tuned_models_chats_alone() -> None:
    size = PairSize(n_chats=50)
    for habits in (False, True):
        for number, row in enumerate(chats(size, habits=habits)):
            asked, said = (message["content"] for message in row["messages"])
            assert asked.startswith(ASKED[HABITS[number % len(HABITS)]].partition("{}")[0])
            assert said.endswith(CLOSING) == (habits and HABITS[number % len(HABITS)] == "closing")
    assert set(ASKED) == set(HABITS)
    assert with_habit("closing", "text", np.random.default_rng(0)) == f"text{CLOSING}"
