"""The framing control: what is counted, what is asked, and that nothing is asked unless wanted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from crossdiff.annotation import prompts
from crossdiff.annotation.framing import framing_control, framing_sentence
from crossdiff.annotation.local import _ASK_CATEGORY
from crossdiff.annotation.settings import Claude, Lexical, Transformers
from crossdiff.taxonomy.scheme import OTHER, UNINTERPRETABLE
from tests.annotation.campaign import campaign, scheme, settings
from tests.messages_replies import Faults, reply
from tests.messages_server import KEY, MessagesServer
from tests.model_folders import make_tokenizer, save_model


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
        found = framing_control(run, scheme(), run.subjects)
        run.close()
        again = campaign(settings("claude", server.address, framing=False), tmp_path, 5)
        assert framing_control(again, scheme(), again.subjects) == {}
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
        found = framing_control(run, scheme(), run.subjects)
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
    found = framing_control(run, scheme(), run.subjects)
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
    found = framing_control(run, scheme()[:3], run.subjects)
    assert {one["answered"] for one in found.values()} == {2}


def test_keys_stay_while_it_is_off() -> None:
    assert "framing" not in Claude().identity()
    assert Claude(framing=True).identity()["framing"] is True


def test_an_annotator_of_keywords_has_no_framing() -> None:
    assert "framing" not in Lexical.model_fields
