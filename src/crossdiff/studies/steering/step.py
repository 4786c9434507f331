"""Stage steer: answers with directions of exclusive latents, or random ones as long, added or removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from crossdiff.io.progress import track
from crossdiff.io.tables import read_jsonl, read_table, write_json, write_jsonl
from crossdiff.models.pair import ModelSettings, resolve
from crossdiff.organisms.settings import ToySettings
from crossdiff.settings import Runtime, Settings
from crossdiff.stages.protocol import Stage, needs
from crossdiff.studies.steering.targets import (
    LATENT,
    Target,
    built_in_targets,
    counted,
    planted_targets,
    sentence_at,
    target_of,
)

if TYPE_CHECKING:
    import pandas as pd
    from jaxtyping import Float
    from torch import Tensor

    from crossdiff.core.crosscoder import Crosscoder
    from crossdiff.models.generate import ChatModel

VERSION = 2
PLACES = ("own", "neutral")
"""Prompts of the behaviour's category, and of the other categories."""


class SteerInputs(Settings):
    """What determines the answers, besides the parents (train, documents, annotate of one pair).

    doses       of a latent's largest code among its examples; negative ones subtract
    n_latents   most latents per category, those whose highest documents show their behaviour most often
    n_random    random directions per latent, with the norm of the latent's
    n_prompts   answers per dose to prompts of the category, and as many to prompts of other categories
    """

    pair: str
    layer: int = Field(ge=0)
    model: ModelSettings
    fingerprint: str
    toy: ToySettings | None = None
    doses: tuple[float, ...] = Field(default=(-1.0, 0.25, 0.5, 1.0, 2.0), min_length=1)
    n_latents: int = Field(default=1, ge=1)
    n_random: int = Field(default=1, ge=1)
    n_prompts: int = Field(default=24, ge=1)
    n_new_tokens: int = Field(default=36, ge=1)
    batch_size: int = Field(default=256, ge=1)
    seed: int = 0


@dataclass(frozen=True)
class Steered:
    """A latent and the behaviour in its documents; `vector` is dose 1 in raw activation units."""

    latent: int
    target: Target
    share: float
    peak: float
    vector: Float[Tensor, " d_model"]

    def row(self) -> dict[str, Any]:
        """The latent's entry of `steering.json`."""
        return {
            "latent": self.latent, "category": self.target.category, "target": self.target.name,
            "share": self.share, "peak_code": self.peak, "norm": float(self.vector.norm()),
        }  # fmt: skip


@dataclass(frozen=True)
class Condition:
    """One direction at one dose; with `dose` None the state's part along the direction is removed."""

    direction: str
    dose: float | None
    added: Float[Tensor, " d_model"]
    removed: Float[Tensor, " d_model"]


def run(inputs: SteerInputs, parents: Mapping[str, Path], draft: Path, runtime: Runtime) -> dict[str, Any]:
    """Write `steering.csv` (rows: latent, direction, dose, place), `answers.jsonl` and `steering.json`."""
    import pandas as pd

    from crossdiff.core.crosscoder import Crosscoder
    from crossdiff.models.generate import load_chat_model

    crosscoder = Crosscoder.load(parents["train"] / "crosscoder").requires_grad_(requires_grad=False)
    chosen, counts = choose(inputs, parents, crosscoder)
    rows, lines, sampling = [], [], None
    if chosen:
        path = resolve(inputs.model, parents.get("organism"))
        chat = load_chat_model(inputs.model, path, device=runtime.device)
        centre = crosscoder.normaliser.mean[-1]
        sampling = chat.sampling()
        for steered in track(chosen, total=len(chosen), description="steer", enabled=runtime.progress):
            answered = steer(inputs, chat, steered, centre=centre)
            lines += answered
            rows += counted(answered)
    columns = ["latent", "direction", "dose", "place", "shown", "n", "n_empty"]
    pd.DataFrame(rows, columns=columns).to_csv(draft / "steering.csv", index=False)
    write_jsonl(lines, draft / "answers.jsonl")
    write_json(
        {
            "version": 1,
            "pair": inputs.pair,
            **counts,
            "sampling": sampling,
            "latents": [steered.row() for steered in chosen],
        },
        draft / "steering.json",
    )
    return {**counts, "n_answers": len(lines)}


def choose(
    inputs: SteerInputs, parents: Mapping[str, Path], crosscoder: Crosscoder
) -> tuple[list[Steered], dict[str, int]]:
    """Latents to steer along, by category, and counts of exclusive, labelled and matched ones."""
    from crossdiff.core.decoder_norms import raw_directions

    number = inputs.n_prompts
    targets = built_in_targets(number) if inputs.toy is None else planted_targets(inputs.toy, number)
    labels = read_labels(parents["annotate"] / "annotations.jsonl", inputs.pair)
    examples = read_table(parents["documents"] / "examples.parquet", kind="examples")
    directions = raw_directions(crosscoder)[:, -1]
    candidates = []
    for name, of_latent in examples.groupby("latent"):
        latent = int(str(name))
        matched = _matched(latent, of_latent, labels, targets)
        if matched is not None:
            peak = float(of_latent["peak_code"].to_numpy().max())
            candidates.append(Steered(latent, *matched, peak, peak * directions[latent]))
    known = {target.category for target in targets}
    counts = {
        "n_exclusive": len(labels),
        "n_in_category": sum(name in known for name in labels.values()),
        "n_matched": len(candidates),
    }
    return best_of(candidates, inputs.n_latents), counts


def _matched(
    latent: int, examples: pd.DataFrame, labels: Mapping[int, str | None], targets: Sequence[Target]
) -> tuple[Target, float] | None:
    category = labels.get(latent)
    if category is None:
        return None
    top = examples[(examples["subset"] == "explain") & (examples["source"] == "top")]
    sentences = [sentence_at(list(r.tokens), int(r.peak)) for r in top.itertuples()]  # type: ignore[arg-type]
    return target_of(category, sentences, targets) if sentences else None


def read_labels(path: Path, pair: str) -> dict[int, str | None]:
    """Tuned-exclusive latent of the pair -> its category; None without an answer."""
    return {
        int(row["latent"]): row["category"]
        for row in read_jsonl(path)
        if row["pair"] == pair and row["role"] == "exclusive_tuned"
    }


def best_of(candidates: Sequence[Steered], n_latents: int) -> list[Steered]:
    """The first `n_latents` of each category by share of documents, then largest code, then number."""
    taken: dict[str, list[Steered]] = {}
    for latent in sorted(candidates, key=lambda latent: (-latent.share, -latent.peak, latent.latent)):
        kept = taken.setdefault(latent.target.category, [])
        if len(kept) < n_latents:
            kept.append(latent)
    return [latent for name in sorted(taken) for latent in taken[name]]


def conditions(inputs: SteerInputs, steered: Steered) -> list[Condition]:
    """No push; then the latent's and every random direction at every dose, and removed."""
    import torch

    from crossdiff.core.decoder_norms import random_like

    nothing = torch.zeros_like(steered.vector)
    drawn = random_like(steered.vector, n_draws=inputs.n_random, seed=(inputs.seed, steered.latent))
    conditions = [Condition(LATENT, 0.0, nothing, nothing)]
    directions = [(LATENT, steered.vector), *((f"random_{i}", one) for i, one in enumerate(drawn))]
    for name, vector in directions:
        conditions += [Condition(name, dose, dose * vector, nothing) for dose in inputs.doses]
        conditions.append(Condition(name, None, nothing, vector / vector.norm()))
    return conditions


def steer(
    inputs: SteerInputs, chat: ChatModel, steered: Steered, *, centre: Float[Tensor, " d_model"]
) -> list[dict[str, Any]]:
    """One line per answer; all conditions of a latent run side by side in the same batches."""
    import torch

    from crossdiff.models.generate import Steering, answers, block_of
    from crossdiff.models.hooks import Push

    asked = [(place, text) for place in PLACES for text in getattr(steered.target, place)]
    cells = [(push, place, text) for push in conditions(inputs, steered) for place, text in asked]
    push = Push(
        torch.stack([condition.added for condition, _, _ in cells]),
        torch.stack([condition.removed for condition, _, _ in cells]),
        centre,
    )
    drawn = answers(
        chat,
        [text for _, _, text in cells],
        n_new_tokens=inputs.n_new_tokens,
        seed=(inputs.seed << 32) + steered.latent,
        batch_size=inputs.batch_size,
        steering=Steering(block_of(chat, inputs.model, inputs.layer), push),
    )
    return [
        {
            "latent": steered.latent, "direction": pushed.direction, "dose": pushed.dose, "place": place,
            "prompt": text, "answer": answer, "shown": steered.target.shows(answer),
        }
        for (pushed, place, text), answer in zip(cells, drawn, strict=True)
    ]  # fmt: skip


STAGE = Stage(
    "steer",
    version=VERSION,
    run=run,
    reads=("organism", "blend", "train", "documents", "annotate"),
    writes="answers with latents' directions added or removed",
    resources=needs(gpus=1, cpus=4, memory_gb=64, hours=12),
)
