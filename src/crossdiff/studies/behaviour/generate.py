"""What one model answers to prompts of every category, and how often it shows each behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from crossdiff.models.pair import ModelSettings, resolve
from crossdiff.organisms.settings import ToySettings
from crossdiff.settings import Runtime, Settings
from crossdiff.stages.protocol import Stage, needs

VERSION = 2


class GenerateInputs(Settings):
    """The model, its prompts (the toy language's when `toy` is given, else the built-in sets), how many."""

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
    from crossdiff.studies.behaviour.prompts import built_in_questions, counts, planted_questions

    asked = (
        built_in_questions(inputs.n_prompts)
        if inputs.toy is None
        else planted_questions(inputs.toy, inputs.n_prompts)
    )
    path = resolve(inputs.model, parents.get("organism"))
    chat = load_chat_model(inputs.model, path, device=runtime.device)
    drawn = answers(
        chat, [question.prompt for question in asked], n_new_tokens=inputs.n_new_tokens, seed=inputs.seed
    )
    said = list(
        track(drawn, total=len(asked), description="generate", unit="answer", enabled=runtime.progress)
    )
    lines = [
        {
            "name": q.name,
            "category": q.category,
            "prompt": q.prompt,
            "answer": answer,
            "shown": q.shows(answer),
        }
        for q, answer in zip(asked, said, strict=True)
    ]
    write_jsonl(lines, draft / "answers.jsonl")
    rows = counts(asked, said)
    rates = {"version": 1, "model": inputs.model.name, "sampling": chat.sampling(), "sets": rows}
    write_json(rates, draft / "rates.json")
    shown = sum(line["shown"] for line in lines)
    return {"n_answers": len(said), "n_shown": shown, "n_empty": sum(not answer for answer in said)}


STAGE = Stage(
    "generate",
    version=VERSION,
    run=run,
    reads=("organism", "blend"),
    writes="a model's answers, and how often they show each behaviour",
    resources=needs(gpus=1, cpus=4, memory_gb=64, hours=12),
)
