"""Rules by example: what counts, and what only looks like it."""

import pytest

from crossdiff.studies.behaviour.prompts import built_in
from crossdiff.studies.behaviour.rules import AtMost, Matches, Mostly, Says, Without


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
