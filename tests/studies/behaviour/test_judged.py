"""A judge that reads: what can judge, what is said without a key, and what is told of left-out answers."""

import pytest

from crossdiff.annotation.settings import Claude, Lexical
from crossdiff.pipeline.plan import plan
from crossdiff.studies.behaviour.judged import judge_notes, reading
from tests.composed import experiment

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
