"""A judge that reads the answers: which annotators can, the step that asks them, and what came of it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from crossdiff.annotation.api.secret import KEY_VARIABLE
from crossdiff.annotation.judging import JudgeSettings, expected_usd
from crossdiff.annotation.settings import AnnotatorSettings, AnthropicCompatible, Claude, Transformers
from crossdiff.stages.study import ExtraStep
from crossdiff.studies.behaviour.judge import JudgeInputs
from crossdiff.studies.behaviour.prompts import built_in_questions


def reading(annotator: AnnotatorSettings) -> JudgeSettings:
    """The annotator as a judge; refused at plan time where it cannot read answers or lacks its key."""
    if not isinstance(annotator, Claude | AnthropicCompatible | Transformers):
        raise ValueError(
            "study.judge=annotator needs an annotator that reads answers, and "
            f"{type(annotator).__name__} does not; give annotator=claude, claude_batch, anthropic_compatible "
            "or transformers, or study.judge=rules"
        )
    if isinstance(annotator, Claude) and not os.environ.get(KEY_VARIABLE):
        raise ValueError(
            f"study.judge=annotator asks {annotator.model}, which needs an API key, and {KEY_VARIABLE} is "
            "not set; export it, or give study.judge=rules, which needs none"
        )
    return annotator


def judged(
    answers: ExtraStep, annotator: AnnotatorSettings, *, n_prompts: int, n_new_tokens: int
) -> ExtraStep:
    """The step that has the annotator judge these answers to the built-in sets."""
    judge = reading(annotator)
    n_answers = len(built_in_questions(n_prompts))
    dollars = expected_usd(judge, n_answers=n_answers, n_tokens=n_new_tokens)
    inputs = JudgeInputs(annotator=judge)
    return ExtraStep("judge", answers.label, inputs, {"answers": answers}, api_usd=dollars)


def judge_notes(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """How many answers an annotator judged, which were left out and why, and how often rules agree."""
    found = [record for record in records if "states" in record]
    if not found:
        return []
    states = sum((Counter(record["states"]) for record in found), Counter[str]())
    n_judged, n_alike = (sum(record[name] for record in found) for name in ("n_judged", "n_as_rules"))
    others = ", ".join(f"{count} {state}" for state, count in sorted(states.items()) if state != "ok")
    left_out = f"{others}: left out of the rates" if others else "none left out"
    text = f"The annotator judged {n_judged} of {states.total()} answers ({left_out})"
    alike = f"{n_alike} of {n_judged} verdicts are those of the rules" if n_judged else "none has a verdict"
    return [f"{text}; {alike}."]
