"""Votes combined by hand."""

from __future__ import annotations

from crossdiff.annotation.results import Answer, combine
from crossdiff.annotation.schema import Described


def vote(category: str, confidence: int = 3, label: str = "l", source: str = "m") -> Answer[Described]:
    return Answer("ok", source, Described(label, "d", category, (0,), confidence))  # type: ignore[arg-type]


def failed(state: str) -> Answer[Described]:
    return Answer(state, "m")  # type: ignore[arg-type]


def test_the_majority_wins_and_shares_are_kept() -> None:
    found = combine("00001", [vote("x"), vote("y", 5), vote("x", 4, "best", "n")])
    assert (found.category, found.label, found.annotator, found.confidence) == ("x", "best", "n", 4)
    assert found.votes == {"x": 2 / 3, "y": 1 / 3}


def test_a_tie_goes_to_the_surer_then_to_the_earlier() -> None:
    assert combine("1", [vote("x", 2), vote("y", 3)]).category == "y"
    assert combine("1", [vote("x", 3), vote("y", 3)]).category == "x"


def test_failures_leave_the_shares_and_without_an_answer_are_the_state() -> None:
    found = combine("1", [vote("x"), failed("refused"), failed("errored")])
    assert (found.votes, found.failed_votes) == ({"x": 1.0}, {"refused": 1, "errored": 1})
    found = combine("1", [failed("invalid"), failed("errored"), failed("errored")])
    assert (found.state, found.category, found.votes) == ("errored", None, {})


def test_more_refused_than_answered_votes_make_the_latent_refused() -> None:
    found = combine("1", [failed("refused"), vote("x"), failed("refused")])
    assert (found.state, found.category, found.votes) == ("refused", None, {})
    assert found.failed_votes == {"refused": 2}
    assert combine("1", [vote("x"), vote("x"), failed("refused")]).category == "x"
    assert combine("1", [failed("errored"), vote("x"), failed("errored")]).category == "x"


def test_uninterpretable_is_a_state_with_a_category() -> None:
    found = combine("1", [vote("uninterpretable"), vote("uninterpretable"), vote("x")])
    assert (found.state, found.category) == ("uninterpretable", "uninterpretable")
