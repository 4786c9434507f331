"""Estimated cost of a step (GPU-hours, CPU-hours, disk, API dollars), and the plan's table.

Rates are those of docs/performance.md: 790 TFLOP/s (bf16) for one H200, of which a forward pass reaches
60 %; two CPU cores do about 0.2 TFLOP/s in float32. A training step costs 36.2/8.5 encoder products.
What no size lowers is added for two cores alone: `STEP_SECONDS` a training step, `Stage.least_seconds` a
step of the plan.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crossdiff.annotation.settings import N_SWAPPED, AnnotatorSettings
from crossdiff.core.dictionary import encoder_flops
from crossdiff.data.settings import CacheSource, LiveSource
from crossdiff.models.config_file import folder_sizes
from crossdiff.models.pair import ORGANISM, ModelPair, ModelSettings
from crossdiff.organisms.settings import CONTEXT, ToySettings
from crossdiff.pipeline.steps import Cost, Step, group

GPU_FLOPS, FORWARD_SHARE = 790e12, 0.6
CPU_FLOPS = 0.2e12
TOY_FLOPS = 0.08e12
"""What two cores reach in training toy models, whose matrices are small."""
STEP_SECONDS = 0.024
"""Two cores, per training step: 32 ms in the demo, of which `STEP_PER_ENCODER_PRODUCT` explains 9."""
CPU_HOURS_ALLOWED = 3.0
"""Longest plan that starts on a CPU without `device=cpu`."""
STEP_PER_ENCODER_PRODUCT = 36.2 / 8.5
USD_PER_LATENT = 0.0035
QUESTIONS_PER_LATENT = 6
"""Three votes and three scores; the framing control asks one question per swapped control and prompt."""
TOY_DOCUMENT_TOKENS = 64


@dataclass(frozen=True)
class ModelShape:
    """Sizes that decide the cost of a forward pass."""

    d_model: int
    n_blocks: int
    block_parameters: int
    n_positions: int | None = None
    """Longest document that the model can read, in tokens."""

    def forward_flops(self, layer: int) -> float:
        """FLOPs per token up to and including block `layer`, two per parameter, attention scores left out."""
        return 2.0 * self.block_parameters * (layer + 1)


KNOWN = {
    "google/gemma-2-9b": ModelShape(3584, 42, 198_195_200, 8192),
    "google/gemma-2-9b-it": ModelShape(3584, 42, 198_195_200, 8192),
    "princeton-nlp/gemma-2-9b-it-SimPO": ModelShape(3584, 42, 198_195_200, 8192),
    "meta-llama/Meta-Llama-3-8B": ModelShape(4096, 32, 218_112_000, 8192),
    "meta-llama/Meta-Llama-3-8B-Instruct": ModelShape(4096, 32, 218_112_000, 8192),
}


def toy_shape(toy: ToySettings) -> ModelShape:
    """Shape of the models of the toy triple."""
    parameters = 4 * toy.d_model**2 + 3 * toy.d_model * toy.d_mlp
    return ModelShape(toy.d_model, toy.n_layers, parameters, CONTEXT)


def model_shape(model: ModelSettings, toy: ToySettings) -> ModelShape | None:
    """Shape of a known hub model, a toy, or a local folder (its config.json); None when unknown."""
    if model.path.startswith(ORGANISM):
        return toy_shape(toy)
    if model.path in KNOWN:
        return KNOWN[model.path]
    sizes = folder_sizes(model.path)
    if sizes is None or sizes.d_model is None or sizes.n_blocks is None:
        return None
    hidden = sizes.d_mlp or 4 * sizes.d_model
    parameters = 4 * sizes.d_model**2 + 3 * sizes.d_model * hidden
    return ModelShape(sizes.d_model, sizes.n_blocks, parameters, sizes.n_positions)


def wider_shape(pair: ModelPair, toy: ToySettings) -> ModelShape | None:
    """The base model's shape; with a wider tuned model (two families) that one's, the crosscoder's width."""
    base, tuned = (model_shape(model, toy) for model in (pair.base, pair.tuned))
    return tuned if base and tuned and tuned.d_model > base.d_model else base


def toy_tokens(toy: ToySettings) -> int:
    """About how many tokens the toy corpus holds."""
    return (toy.n_web_documents + toy.n_chat_documents) * TOY_DOCUMENT_TOKENS


def bytes_per_value(model: ModelSettings, source: CacheSource | LiveSource) -> int:
    """Bytes of one stored activation value; a live source stores none."""
    if isinstance(source, LiveSource):
        return 0
    storage = model.dtype if source.storage == "model" else source.storage
    return {"float32": 4, "int8": 1}.get(storage, 2)


def harvest_cost(shape: ModelShape | None, *, layer: int, n_tokens: int | None, bytes_per_value: int) -> Cost:
    """One forward pass up to the block, and one row of `d_model` values per token on disk."""
    if shape is None or n_tokens is None:
        return Cost(None, None, None)
    flops = shape.forward_flops(layer) * n_tokens
    disk = n_tokens * shape.d_model * bytes_per_value / 1e9
    return Cost(flops / (GPU_FLOPS * FORWARD_SHARE) / 3600, flops / CPU_FLOPS / 3600, disk)


def crosscoder_cost(
    shape: ModelShape | None, *, n_latents: int, n_tokens: int | None, products: float, disk: bool
) -> Cost:
    """`products` encoder products of both models per token, and the weights in float32 on disk."""
    if shape is None or n_tokens is None:
        return Cost(None, None, None)
    size = 4 * 2 * 2 * shape.d_model * n_latents / 1e9 if disk else 0.0
    return products_cost(products * encoder_flops(n_latents, shape.d_model, n_tokens)) + Cost(disk_gb=size)


def products_cost(flops: float) -> Cost:
    """Matrix products, each at the rate of its device."""
    return Cost(flops / GPU_FLOPS / 3600, flops / CPU_FLOPS / 3600)


def steps_cost(n_steps: int) -> Cost:
    """What training steps take on a CPU beside their products."""
    return Cost(cpu_hours=n_steps * STEP_SECONDS / 3600)


def weights_cost(shape: ModelShape | None) -> Cost:
    """A model's blocks on disk, two bytes per weight."""
    return Cost(0.0, 0.0, None if shape is None else shape.n_blocks * shape.block_parameters * 2 / 1e9)


def tokens_cost(n_tokens: int | None) -> Cost:
    """Ids, kinds and offsets take about 6 bytes per token, tokenising 1 s per 0.3 M tokens and core."""
    if n_tokens is None:
        return Cost(0.0, None, None)
    return Cost(0.0, n_tokens / 3e5 / 3600, n_tokens * 6 / 1e9)


def organism_cost(toy: ToySettings) -> Cost:
    """The three toy models: three FLOPs per parameter and token pass, doubled for preference pairs."""
    shape = toy_shape(toy)
    documents = sum(
        phase.n_steps * phase.batch_size
        for phase in (toy.pretraining, toy.tuning, toy.preference, toy.preference)
    )
    flops = 3 * shape.forward_flops(shape.n_blocks - 1) * documents * TOY_DOCUMENT_TOKENS
    return Cost(0.0, flops / TOY_FLOPS / 3600, 0.05)


def annotation_cost(annotator: AnnotatorSettings, *, n_pairs: int, n_drifted: int = 0) -> Cost:
    """API dollars for about 110 latents per pair and its drifted ones; none for annotators that run here."""
    n_latents: float = n_pairs * (110 + n_drifted)
    if getattr(annotator, "framing", False):
        n_latents += 2 * N_SWAPPED / QUESTIONS_PER_LATENT
    return label_cost(annotator, n_latents)


def label_cost(annotator: AnnotatorSettings, n_labelled: float) -> Cost:
    """API dollars for labels of that many latents or topics; none for annotators that run here."""
    kind = type(annotator).__name__
    paid = {"Claude": 1.0, "ClaudeBatch": 0.5}.get(kind, 0.0)
    return Cost(api_usd=n_labelled * USD_PER_LATENT * paid)


HEADER = ("step", "key", "state", "GPU h", "CPU h", "disk GB", "API $")


def plan_table(steps: Sequence[Step], store: Path) -> str:
    """Aligned columns, one row per step, and the total of what is still to do."""
    repeated = {name for name, count in Counter(step.name for step in steps).items() if count > 1}
    rows = [HEADER, *(_row(step, store, by_layer=step.name in repeated) for step in steps)]
    left = remaining_cost(steps, store)
    finished = sum(step.is_finished(store) for step in steps)
    total = f"{finished} of {len(steps)} steps finished in store={store}; still to do: {describe(left)}"
    return f"{columns(rows)}\n{total}"


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Aligned text; the first row is the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def remaining_cost(steps: Sequence[Step], store: Path) -> Cost:
    """Summed cost of the jobs that are not finished; layers of one forward pass are paid once."""
    total = Cost()
    for job in group([step for step in steps if not step.is_finished(store)]):
        total = total + job.cost + _least(job.steps[0])
    return total


def _least(step: Step) -> Cost:
    """What its smallest run takes; an import's is unknown and left out."""
    return Cost() if step.is_imported else Cost(cpu_hours=step.definition.least_seconds / 3600)


def describe(cost: Cost) -> str:
    """The cost as one phrase."""
    return (
        f"{amount(cost.gpu_hours)} GPU-hours (one H200, estimated) or "
        f"{amount(cost.cpu_hours)} hours of 2 cores, "
        f"{amount(cost.disk_gb)} GB of disk, {amount(cost.api_usd)} $ of API calls"
    )


def layers_of(step: Step) -> tuple[int, ...]:
    """Layers of the step and of all its ancestors."""
    layers = set(getattr(step.inputs, "layers", ()))
    return tuple(sorted(layers.union(*(layers_of(parent) for parent in step.parents.values()))))


def _row(step: Step, store: Path, *, by_layer: bool) -> tuple[str, ...]:
    layers = layers_of(step) if by_layer else ()
    name = f"{step.shown}, layer {' '.join(map(str, layers))}" if layers else step.shown
    state = "finished" if step.is_finished(store) else "to do"
    cost = step.cost + _least(step)
    amounts = (cost.gpu_hours, cost.cpu_hours, cost.disk_gb, cost.api_usd)
    return (name, step.key, state, *(amount(value) for value in amounts))


def amount(value: float | None) -> str:
    """A cost for a table cell."""
    if value is None:
        return "unknown"
    if value == 0:
        return "0"
    if value < 0.005:
        return "<0.01"
    return f"{value:,.2f}" if value < 100 else f"{value:,.0f}"
