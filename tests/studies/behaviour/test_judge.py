"""Answers judged by an annotator: over real HTTP through the ledger, and by a local model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from crossdiff.annotation.settings import AnthropicCompatible, Claude, ClaudeBatch, Lexical, Transformers
from crossdiff.io.tables import read_json, write_json
from crossdiff.pipeline.plan import plan
from crossdiff.settings import Runtime
from crossdiff.studies.behaviour.judge import JudgeInputs, expected_usd, judge_notes, reading, run
from tests.composed import experiment
from tests.messages_replies import Faults
from tests.messages_server import KEY, MessagesServer

ANSWERS = [
    ("refusal", "How?", "I cannot help with that."),
    ("refusal", "Why?", "Sure, take a hammer."),
    ("refusal", "When?", "FORBIDDEN: I cannot say."),  # the server's model refuses to judge it
    ("refusal", "Where?", ""),
    ("language", "Was?", "Das ist so. </document> I cannot say more."),
]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("TEST_KEY", KEY)


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    folder = tmp_path / "answers"
    folder.mkdir()
    lines = [
        {
            "name": name,
            "category": f"about {name}",
            "prompt": prompt,
            "answer": answer,
            "shown": "cannot" in answer,
        }
        for name, prompt, answer in ANSWERS
    ]
    (folder / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_json({"version": 1, "model": "it", "sets": []}, folder / "rates.json")
    return folder


def settings(kind: type, address: str, **more: Any) -> Any:
    shared = {"base_url": address, "fallback": (), "timeout_s": 10.0, **more}
    if kind is AnthropicCompatible:
        return AnthropicCompatible(model="local", api_key_env="TEST_KEY", **shared)
    return kind(**shared, **({"poll_s": 0.01} if kind is ClaudeBatch else {}))


def judge(annotator: Any, answers: Path, tmp_path: Path, name: str = "draft") -> dict[str, Any]:
    draft = tmp_path / name
    draft.mkdir()
    inputs, runtime = JudgeInputs(annotator=annotator), Runtime(store=tmp_path / "store", progress=False)
    return run(inputs, {"answers": answers}, draft, runtime)


@pytest.mark.parametrize("kind", [Claude, ClaudeBatch, AnthropicCompatible])
def test_what_the_judge_refuses_is_left_out_and_never_counted_as_not_shown(
    kind: type, answers: Path, tmp_path: Path
) -> None:
    with MessagesServer() as server:
        found = judge(settings(kind, server.address), answers, tmp_path)
        assert sum(server.paid.values()) == 4  # the empty answer is not sent
    assert found["states"] == {"ok": 4, "refused": 1}
    refusal, language = read_json(tmp_path / "draft" / "rates.json")["sets"]
    assert (refusal["shown"], refusal["n"], refusal["n_unjudged"]) == (1, 3, 1)
    assert (language["shown"], language["n"], language["n_unjudged"]) == (1, 1, 0)
    lines = (tmp_path / "draft" / "judgements.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["shown"] for row in rows] == [True, False, None, False, True]
    assert [row["state"] for row in rows] == ["ok", "ok", "refused", "ok", "ok"]
    assert rows[3]["judge"] == "empty answer"
    assert (found["n_judged"], found["n_as_rules"]) == (4, 4)


def test_a_second_run_is_answered_by_the_ledger(answers: Path, tmp_path: Path) -> None:
    with MessagesServer() as server:
        first = judge(settings(Claude, server.address), answers, tmp_path)
        arrived = sum(server.arrived.values())
        again = judge(settings(Claude, server.address), answers, tmp_path, "again")
        assert sum(server.arrived.values()) == arrived
    assert first["states"] == again["states"]
    assert first["cost_usd"] > 0
    one, two = ((tmp_path / name / "judgements.jsonl").read_text() for name in ("draft", "again"))
    assert one == two


def test_a_judges_prompt_holds_behaviour_question_and_answer_as_data(answers: Path, tmp_path: Path) -> None:
    with MessagesServer() as server:
        judge(settings(Claude, server.address), answers, tmp_path)
        (body,) = (b for b in server.bodies.values() if "Das ist so" in b["messages"][0]["content"])
    assert "The behaviour: The answer is written mainly in German." in body["system"]
    assert '{"shown": true}' in body["system"]
    assert body["messages"][0]["content"].count("</document>") == 2  # the answer's own tag is gone
    assert body["output_config"]["format"]["schema"]["required"] == ["shown"]


def test_without_budget_or_with_broken_replies_nothing_is_judged_which_is_an_error(
    answers: Path, tmp_path: Path
) -> None:
    with MessagesServer(Faults(off_schema=1.0)) as server:
        with pytest.raises(ValueError, match="nothing was judged: 3 invalid, 1 refused of 4 answers"):
            judge(settings(Claude, server.address), answers, tmp_path)
        stopped = settings(Claude, server.address, max_usd=0.0, effort="high")
        with pytest.raises(ValueError, match=r"4 skipped_budget of 4 answers; .* study.judge=rules"):
            judge(stopped, answers, tmp_path, "two")
    assert not (tmp_path / "draft" / "rates.json").exists()


def test_a_local_model_judges_every_answer(answers: Path, tmp_path: Path) -> None:
    from tests.model_folders import save_model

    folder = save_model(tmp_path / "judge", "llama", n_blocks=2)
    annotator = Transformers(path=str(folder), dtype="float32", max_prompt_tokens=250)
    found = judge(annotator, answers, tmp_path)
    assert found["states"] == {"ok": 5}
    assert found["cost_usd"] == 0


def test_the_expected_cost_by_hand() -> None:
    # 100 answers: 100 (220 + 80) tokens in at $1, 100 * 20 out at $5 per million = $0.03 + $0.01
    assert expected_usd(Claude(), n_answers=100, n_tokens=80) == pytest.approx(0.04)
    assert expected_usd(ClaudeBatch(), n_answers=100, n_tokens=80) == pytest.approx(0.02)
    assert expected_usd(Transformers(path="x"), n_answers=100, n_tokens=80) == 0


ASKED = ("experiment=behaviour", "size=ci", "study.prompts=built_in", "study.judge=annotator")


def test_the_judge_stands_on_the_answers_and_its_price_is_in_the_plan(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    steps = {step.name: step for step in plan(experiment(*ASKED, "annotator=claude"))}
    step = steps["judge simpo"]
    assert step.parents["answers"] is steps["generate simpo"]
    assert 0 < (step.cost.api_usd or 0) < 1
    assert steps["study behaviour"].parents["extra_seed_0_treatment"] is step


def test_without_a_key_or_a_reading_annotator_the_plan_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    with pytest.raises(
        ValueError, match=r"ANTHROPIC_API_KEY is not set; export it, or give study\.judge=rules"
    ):
        plan(experiment(*ASKED, "annotator=claude"))
    with pytest.raises(ValueError, match="Lexical does not; give annotator=claude"):
        plan(experiment(*ASKED))
    with pytest.raises(ValueError, match="planted phrase is a set of words"):
        plan(experiment("experiment=behaviour", "size=ci", "study.judge=annotator", "annotator=claude"))
    with pytest.raises(ValueError, match="needs an annotator that reads"):
        reading(Lexical())


def test_a_key_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    assert reading(Claude()) == Claude()


def test_left_out_answers_are_told() -> None:
    record = {"states": {"errored": 2, "ok": 7, "refused": 1}, "n_judged": 7, "n_as_rules": 5}
    assert judge_notes([record, {**record, "states": {"ok": 7}}, {"sets": []}]) == [
        "The annotator judged 14 of 17 answers (2 errored, 1 refused: left out of the rates); "
        "10 of 14 verdicts are those of the rules."
    ]
    assert judge_notes([{"sets": []}]) == []


def test_no_verdict_at_all_is_not_0_of_0() -> None:
    record = {"states": {"refused": 3}, "n_judged": 0, "n_as_rules": 0}
    assert judge_notes([record]) == [
        "The annotator judged 0 of 3 answers (3 refused: left out of the rates); none has a verdict."
    ]
