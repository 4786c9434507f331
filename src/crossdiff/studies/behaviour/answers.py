"""Answers of a model to prompts of every category, and rates of behaviours in two models.

Stage `generate` writes one model's answers; the other functions pool rates over seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from crossdiff.models.pair import ModelSettings, resolve
from crossdiff.organisms.settings import ToySettings
from crossdiff.report import tables
from crossdiff.report.formatting import readable
from crossdiff.report.study_page import Chart
from crossdiff.settings import Runtime, Settings
from crossdiff.stages.protocol import Stage, needs
from crossdiff.statistics.intervals import wilson

VERSION = 2
ABSTAINING = ("abstention_unanswerable", "abstention_false_premise")
"""Sets whose behaviour is abstaining; other answers count as confabulated."""
SIDES = ("reference", "treatment")


class GenerateInputs(Settings):
    """The model and its prompts: of the toy language where `toy` is given, else the built-in sets."""

    model: ModelSettings
    fingerprint: str
    toy: ToySettings | None = None
    n_prompts: int = Field(default=8, ge=1)
    """Prompts per set."""
    n_new_tokens: int = Field(default=256, ge=1)
    seed: int = 0


def run(inputs: GenerateInputs, parents: Mapping[str, Path], draft: Path, runtime: Runtime) -> dict[str, Any]:
    """Write `answers.jsonl` and `rates.json`."""
    from crossdiff.io.progress import track
    from crossdiff.io.tables import write_json, write_jsonl
    from crossdiff.models.generate import answers, load_chat_model
    from crossdiff.studies.behaviour.prompts import built_in_prompts, counts, planted_prompts

    asked = (
        built_in_prompts(inputs.n_prompts)
        if inputs.toy is None
        else planted_prompts(inputs.toy, inputs.n_prompts)
    )
    path = resolve(inputs.model, parents.get("organism"))
    chat = load_chat_model(inputs.model, path, device=runtime.device)
    drawn = answers(
        chat, [question.prompt for question in asked], n_new_tokens=inputs.n_new_tokens, seed=inputs.seed
    )
    texts = list(
        track(drawn, total=len(asked), description="generate", unit="answer", enabled=runtime.progress)
    )
    lines = [
        {"name": prompt.name, "category": prompt.category, "prompt": prompt.prompt, "answer": answer,
         "shown": prompt.shows(answer)}
        for prompt, answer in zip(asked, texts, strict=True)
    ]  # fmt: skip
    write_jsonl(lines, draft / "answers.jsonl")
    rows = counts(asked, texts)
    rates = {"version": 1, "model": inputs.model.name, "sampling": chat.sampling(), "sets": rows}
    write_json(rates, draft / "rates.json")
    shown = sum(line["shown"] for line in lines)
    return {"n_answers": len(texts), "n_shown": shown, "n_empty": sum(not answer for answer in texts)}


STAGE = Stage(
    "generate",
    version=VERSION,
    run=run,
    reads=("organism", "blend"),
    writes="a model's answers, and how often they show each behaviour",
    resources=needs(gpus=1, cpus=4, memory_gb=64, hours=12),
)


def pooled_rates(sets: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """(shown, judged), rate and Wilson's 95 % interval of both sides over all seeds, per set."""
    pooled: dict[str, dict[str, Any]] = {}
    for name, rows in sets.items():
        side = name.rsplit("_", 1)[1]
        for row in rows:
            totals = pooled.setdefault(row["name"], {"name": row["name"], "category": row["category"]})
            shown, n = totals.get(side, (0, 0))
            totals[side] = (shown + row["shown"], n + row["n"])
    for totals in pooled.values():
        for side in SIDES:
            totals[f"rate_{side}"] = totals[side][0] / totals[side][1] if totals[side][1] else float("nan")
            totals[f"interval_{side}"] = wilson(*totals[side])
    return list(pooled.values())


def rates_chart(pooled: Sequence[Mapping[str, Any]]) -> Chart:
    """Chart of both sides' rates per set."""
    from crossdiff.report.figures.curves import Point, rows

    series = {
        side: [Point(readable(row["name"]), row[f"rate_{side}"], *row[f"interval_{side}"]) for row in pooled]
        for side in SIDES
    }
    body = [
        [readable(row["name"]), *(f"{row[side][0]} of {row[side][1]}" for side in SIDES),
         *(row[f"rate_{side}"] for side in SIDES)]
        for row in pooled
    ]  # fmt: skip
    return Chart(
        "rates",
        "How often each model shows the behaviours of a set",
        "Share of the answers that were judged; bars are Wilson's 95 % intervals.",
        rows(series, x_title="share of answers", zero=False),
        tables.plain(["Set", "Reference", "Treatment", "Rate r.", "Rate t."], body, numeric=[3, 4]),
    )


def totals(pooled: Sequence[Mapping[str, Any]], side: str) -> tuple[int, int]:
    """Answers of one side that show a behaviour, and answers judged, over all sets."""
    return sum(row[side][0] for row in pooled), sum(row[side][1] for row in pooled)


def rates_note(pooled: Sequence[Mapping[str, Any]]) -> str:
    """Sentence with both sides' totals."""
    parts = ["{} of {} answers of the {}".format(*totals(pooled, side), side) for side in SIDES]
    return f"Behaviours were shown in {' and '.join(parts)}."


def hallucination_notes(pooled: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rates of abstaining and confabulating (1 - abstaining) on questions without an answer."""
    abstaining = [row for row in pooled if row["name"] in ABSTAINING]
    if not abstaining:
        return []
    texts = []
    for side in SIDES:
        shown, n = totals(abstaining, side)
        if n == 0:
            texts.append(f"{side}: no answer was judged")
            continue
        low, high = wilson(n - shown, n)
        texts.append(
            f"{side}: abstains in {shown} of {n}, confabulates in {n - shown} ({low:.0%} to {high:.0%})"
        )
    return [f"Unanswerable and false-premise questions: {'; '.join(texts)}."]
