"""Answers of one model judged by an annotator instead of rules; what it does not answer is left out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from crossdiff.annotation.api.secret import KEY_VARIABLE
from crossdiff.annotation.judging import JudgeSettings, expected_usd, judge
from crossdiff.annotation.results import Answer
from crossdiff.annotation.settings import AnnotatorSettings, AnthropicCompatible, Claude, Transformers
from crossdiff.annotation.subjects import Said
from crossdiff.io.tables import read_json, read_jsonl, write_json, write_jsonl
from crossdiff.settings import Runtime, Settings
from crossdiff.stages.protocol import Stage, needs
from crossdiff.stages.study import ExtraStep
from crossdiff.studies.behaviour.prompts import built_in, built_in_questions

VERSION = 1


class JudgeInputs(Settings):
    """Who judges; the parent `answers` is a `generate` step with prompts of the built-in sets."""

    annotator: JudgeSettings


def run(inputs: JudgeInputs, parents: Mapping[str, Path], draft: Path, runtime: Runtime) -> dict[str, Any]:
    """Write `judgements.jsonl` and `rates.json`, in the form of the step `generate` and with what is missing.

    An empty answer shows nothing, as the rules have it, and is not sent.
    """
    lines = read_jsonl(parents["answers"] / "answers.jsonl")
    meant = {prompt_set.name: prompt_set.behaviour for prompt_set in built_in()}
    spoken = [line for line in lines if line["answer"]]
    said = [Said(meant[line["name"]], line["prompt"], line["answer"]) for line in spoken]
    verdicts, dollars = judge(
        inputs.annotator, said, store=runtime.store, device=runtime.device, progress=runtime.progress
    )
    refuse_silence(verdicts)
    answered = iter(verdicts)
    empty = Answer("ok", "empty answer", False)
    rows = [judgement(line, next(answered) if line["answer"] else empty) for line in lines]
    write_jsonl(rows, draft / "judgements.jsonl")
    model = read_json(parents["answers"] / "rates.json")["model"]
    record = {"version": 1, "model": model, "sets": rates(rows), **agreement(rows)}
    write_json(record, draft / "rates.json")
    return {**agreement(rows), "cost_usd": round(dollars, 6)}


def refuse_silence(answers: Sequence[Answer[bool]]) -> None:
    """ValueError where answers were sent and none was judged: such a step is run again."""
    if not answers or any(answer.state == "ok" for answer in answers):
        return
    states = Counter(answer.state for answer in answers)
    listed = ", ".join(f"{count} {state}" for state, count in states.most_common())
    raise ValueError(
        f"nothing was judged: {listed} of {len(answers)} answers; look at the server, the key, the model and "
        "annotator.max_usd and run again, or use study.judge=rules"
    )


def judgement(line: Mapping[str, Any], answer: Answer[bool]) -> dict[str, Any]:
    """One line of `judgements.jsonl`: `shown` is None unless the judge answered; `rule` is what rules say."""
    kept = {name: line[name] for name in ("name", "category", "prompt", "answer")}
    shown = answer.value if answer.state == "ok" else None
    return {**kept, "state": answer.state, "judge": answer.source, "shown": shown, "rule": line["shown"]}


def rates(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Per set: answers judged to show the behaviour, answers judged, answers that were not judged."""
    sets: dict[str, dict[str, Any]] = {}
    for row in rows:
        start = {"name": row["name"], "category": row["category"], "shown": 0, "n": 0, "n_unjudged": 0}
        counts = sets.setdefault(row["name"], start)
        counts["n_unjudged"] += row["shown"] is None
        counts["n"] += row["shown"] is not None
        counts["shown"] += row["shown"] is True
    return list(sets.values())


def agreement(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Answers by state of their judgement, and how many judgements are what the rules say."""
    known = [row for row in rows if row["shown"] is not None]
    return {
        "states": dict(sorted(Counter(row["state"] for row in rows).items())),
        "n_judged": len(known),
        "n_as_rules": sum(row["shown"] == row["rule"] for row in known),
    }


STAGE = Stage(
    "judge",
    version=VERSION,
    run=run,
    reads=("generate",),
    writes="answers judged by an annotator",
    resources=needs(cpus=4, memory_gb=16, hours=24),
)


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
    reader = reading(annotator)
    n_answers = len(built_in_questions(n_prompts))
    dollars = expected_usd(reader, n_answers=n_answers, n_tokens=n_new_tokens)
    inputs = JudgeInputs(annotator=reader)
    return ExtraStep("judge", answers.label, inputs, {"answers": answers}, api_usd=dollars)


def judge_notes(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """How many answers an annotator judged, which were left out and why, and how often rules agree."""
    judged_records = [record for record in records if "states" in record]
    if not judged_records:
        return []
    states = sum((Counter(record["states"]) for record in judged_records), Counter[str]())
    n_judged, n_alike = (
        sum(record[name] for record in judged_records) for name in ("n_judged", "n_as_rules")
    )
    others = ", ".join(f"{count} {state}" for state, count in sorted(states.items()) if state != "ok")
    left_out = f"{others}: left out of the rates" if others else "none left out"
    text = f"The annotator judged {n_judged} of {states.total()} answers ({left_out})"
    alike = f"{n_alike} of {n_judged} verdicts are those of the rules" if n_judged else "none has a verdict"
    return [f"{text}; {alike}."]
