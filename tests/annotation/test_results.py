"""Votes combined by hand; the framing control: what is counted and asked, and nothing unless it is wanted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from crossdiff.annotation import prompts
from crossdiff.annotation.annotators import AnnotationRun
from crossdiff.annotation.local import _ASK_CATEGORY
from crossdiff.annotation.results import Answer, Asserted, asserted, combine, framing_sentence
from crossdiff.annotation.schema import Described
from crossdiff.annotation.settings import Claude, Lexical, Transformers
from crossdiff.annotation.subjects import CategoryLike
from crossdiff.taxonomy.scheme import OTHER, UNINTERPRETABLE
from tests.annotation.campaign import campaign, scheme, settings
from tests.messages_replies import Faults, reply
from tests.messages_server import KEY, MessagesServer
from tests.model_folders import make_tokenizer, save_model


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


def framed(run: AnnotationRun, scheme: Sequence[CategoryLike]) -> dict[str, Asserted]:
    return {
        framing: asserted(annotator.annotate(run.subjects))
        for framing, annotator in run.framings(scheme).items()
    }


def test_only_the_neutral_prompt_says_that_nothing_is_an_answer() -> None:
    presupposing, neutral = (
        prompts.describe_system(scheme(), framing=f) for f in ("presupposing", "neutral")
    )
    for name in (f'"{OTHER}"', f'"{UNINTERPRETABLE}"'):
        assert name in neutral
        assert name not in presupposing
    assert "one concept" in presupposing
    assert "is a full answer" in neutral
    for asked in (presupposing, neutral):
        assert prompts._DATA_RULE in asked
        assert all(f"- {category.name}: " in asked for category in scheme())
    assert prompts.describe_system(scheme()).startswith(prompts.DESCRIBE)


def test_a_server_is_asked_once_per_control_and_framing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    with MessagesServer() as server:
        run = campaign(settings("claude", server.address, framing=True, n_votes=3), tmp_path, 5)
        found = framed(run, scheme())
        run.close()
        again = campaign(settings("claude", server.address, framing=False), tmp_path, 5)
        assert framed(again, scheme()) == {}
        again.close()
    assert set(found) == {"presupposing", "neutral"}
    for one in found.values():
        assert one["asked"] == one["answered"] == 5
        assert 0 <= one["asserted"] <= 5


def test_a_model_that_answers_as_it_is_asked_shows_in_the_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server names a category unless it is told that `other` is a full answer."""

    def leaning(body: dict, faults: Faults) -> dict:
        neutral = "is a full answer" in (body.get("system") or "")
        answer = {"label": "a", "description": "b", "category": OTHER if neutral else "mathematics"}
        text = json.dumps(answer | {"evidence": [0], "confidence": 5})
        return reply(body, faults) | {"stop_reason": "end_turn", "content": [{"type": "text", "text": text}]}

    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setattr("tests.messages_server.reply", leaning)
    with MessagesServer() as server:
        run = campaign(settings("claude", server.address, framing=True), tmp_path, 10)
        found = framed(run, scheme())
        run.close()
    told = str(framing_sentence(found))
    assert "a presupposing prompt asserted a category for 10 of 10 (100%, 72% to 100%)" in told
    assert "a neutral prompt asserted a category for 0 of 10 (0%, 0% to 28%)" in told


def test_what_is_asserted_is_counted_from_the_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The presupposing one names a category for all of 3; the neutral one for 1, and one is refused."""
    from crossdiff.annotation.results import Annotation

    said = {
        "presupposing": [("ok", "mathematics")] * 3,
        "neutral": [("ok", "mathematics"), ("ok", OTHER), ("refused", None)],
    }

    class Saying:
        def __init__(self, answers: list) -> None:
            self.answers = answers

        def annotate(self, subjects: object) -> list[Annotation]:
            return [Annotation("0", state, "a", category=category) for state, category in self.answers]

    run = campaign(Lexical(), tmp_path, 3)
    monkeypatch.setattr(type(run), "framings", lambda self, scheme: {f: Saying(a) for f, a in said.items()})
    found = framed(run, scheme())
    assert found == {
        "presupposing": {"asked": 3, "answered": 3, "asserted": 3},
        "neutral": {"asked": 3, "answered": 2, "asserted": 1},
    }
    assert framing_sentence(found) == (
        "Framing control: of swapped controls, whose examples have nothing in common, a presupposing prompt "
        "asserted a category for 3 of 3 (100%, 44% to 100%) and a neutral prompt asserted a category for "
        "1 of 2 (50%, 9% to 91%; 1 unanswered)."
    )  # 3 / (3 + z^2) = 0.439; 1 of 2: 1/2 -+ z / 2 * sqrt(1 / (2 + z^2)) = 0.095 and 0.905
    nothing = {"neutral": {"asked": 0, "answered": 0, "asserted": 0}}
    assert "too few latents" in str(framing_sentence(nothing))  # type: ignore[arg-type]
    assert framing_sentence({}) is None


def test_a_local_model_is_asked_in_other_words_with_a_leaning_of_its_own(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "llama", "llama", tokenizer=make_tokenizer(), n_blocks=1)
    asked = Transformers(path=str(folder), dtype="float32", max_prompt_tokens=220, n_examples=2, framing=True)
    run = campaign(asked, tmp_path, 2)
    framings = run.framings(scheme()[:3])
    words = {annotator.ask for annotator in framings.values()}  # type: ignore[attr-defined]
    assert len(words | {_ASK_CATEGORY}) == 3
    found = framed(run, scheme()[:3])
    assert {one["answered"] for one in found.values()} == {2}


def test_keys_stay_while_it_is_off() -> None:
    assert "framing" not in Claude().identity()
    assert Claude(framing=True).identity()["framing"] is True


def test_an_annotator_of_keywords_has_no_framing() -> None:
    assert "framing" not in Lexical.model_fields
