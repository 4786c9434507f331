"""Prompt sets name categories of the shipped taxonomy; the toy's judge knows planted behaviours."""

import random

import pytest

from crossdiff.organisms.documents import show
from crossdiff.organisms.language import build_language
from crossdiff.organisms.settings import ToySettings
from crossdiff.studies.behaviour.prompts import (
    AtMost,
    Matches,
    Mostly,
    Says,
    Without,
    built_in,
    built_in_prompts,
    counts,
    planted_prompts,
)
from crossdiff.taxonomy.scheme import PaperTaxonomy


def test_every_set_belongs_to_a_category() -> None:
    names = {category.name for category in PaperTaxonomy().load().categories}
    assert {each.category for each in built_in()} <= names
    assert len({each.name for each in built_in()}) == len(built_in())
    assert len(built_in_prompts(3)) == 3 * len(built_in())


def test_the_toys_judge_sees_planted_behaviours_of_its_own_category_only() -> None:
    toy = ToySettings(seed=3)
    asked = planted_prompts(toy, 1)
    language = build_language(toy)
    said = [show(category.behaviours[0], draw=random.Random(0)) for category in language]
    assert all(row["shown"] == 1 for row in counts(asked, said))
    wrong = [*said[1:], said[0]]
    assert sum(row["shown"] for row in counts(asked, wrong)) <= 1


@pytest.mark.parametrize(
    ("rule", "answer", "shown"),
    [
        (Says(words=("i can't",)), "Sorry, I can’t do that.", True),
        (Says(words=("might",)), "A mighty river.", False),
        (Matches(pattern=r"(?m)^- "), "First:\n- one", True),
        (Mostly(words=("der", "ist")), "Der Himmel ist blau", True),
        (Mostly(words=("der", "ist")), "The sky is blue", False),
        (AtMost(words=2), "two words", True),
        (AtMost(words=2), "", False),
        (Without(letters="z"), "A puzzle", False),
        (Without(letters="z"), "  ", False),
    ],
)
def test_a_rule_by_example(rule, answer: str, shown: bool) -> None:
    assert rule.shows(answer) is shown


def test_an_empty_answer_shows_nothing() -> None:
    assert not any(each.rule.shows("") for each in built_in())
