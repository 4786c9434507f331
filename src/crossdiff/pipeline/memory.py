"""Memory that a training needs on its device: a plan shows it, a run that does not fit is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.sparsity import AnySparsity, BatchTopK
from crossdiff.pipeline.steps import Job, Step, group
from crossdiff.training.settings import TrainingSettings, check_shards

PRODUCT_CHUNK = 4096
"""Latents of the encoder product in memory at a time (`core.sparse.step`)."""
OFFERED = (2, 4, 8, 16)
"""Numbers of shards that a plan tries where one device is not enough."""
WORTH_DEALING_GB = 8.0
"""Need below which every GPU is large enough, and a plan does not mention shards."""
DENSE_MATRICES = 4
"""[token, latent] matrices that autograd keeps in a dense step: codes, scaled codes, mask, gradient."""


def training_gb(
    dictionary: DictionarySettings, sparsity: AnySparsity, training: TrainingSettings, *, d_model: int
) -> float:
    """Largest memory of one process of a pair's training, GB: the sum in docs/performance.md.

    Every process of `training.devices` holds all weights, moments and gradients, and its part of the batch;
    every process of `training.shards` those of its block of latents, and the whole batch.
    """
    width = d_model if dictionary.architecture == "diff_sae" else 2 * d_model
    n_tokens = training.batch_size // (training.devices * training.accumulate)
    n_latents = -(-dictionary.n_latents // training.shards)
    weights = 4 * (n_latents * (2 * width + 1) + width)
    moments = weights // 2 if training.optimizer == "adam_8bit" else 2 * weights
    sparse = type(sparsity) is BatchTopK and training.step != "dense"
    kept = sparsity.k * training.batch_size if isinstance(sparsity, BatchTopK) else n_latents
    rows = min(n_latents, kept) if sparse else n_latents
    gradients = weights * rows // n_latents
    columns = min(PRODUCT_CHUNK, n_latents) if sparse else DENSE_MATRICES * n_latents
    batch = 4 * n_tokens * (4 * width + columns)  # activations, normalised, reconstruction, residual
    return (weights + moments + gradients + batch) / 1e9


def sharded_gb(
    dictionary: DictionarySettings, sparsity: AnySparsity, training: TrainingSettings, *, d_model: int
) -> tuple[tuple[int, float], ...]:
    """(R, GB of one process) for those `training.shards=R` of `OFFERED` that this training could have."""
    found = []
    for shards in OFFERED:
        dealt = training.model_copy(update={"shards": shards})
        try:
            check_shards(dictionary, sparsity, dealt)
        except ValueError:
            continue
        if shards > training.shards and training.members == 1:
            found.append((shards, training_gb(dictionary, sparsity, dealt, d_model=d_model)))
    return tuple(found)


def largest_training(steps: Sequence[Step], store: Path) -> Job | None:
    """The unfinished job that needs the most memory, of those whose need is known."""
    jobs = group([step for step in steps if not step.is_finished(store)])
    return max(
        (job for job in jobs if job.cost.memory_gb), key=lambda job: job.cost.memory_gb or 0, default=None
    )


def memory_line(steps: Sequence[Step], store: Path) -> str | None:
    """The plan's line on memory; None where no unfinished training has a known size."""
    job = largest_training(steps, store)
    if job is None:
        return None
    need, n_ranks = _shown(job.cost.memory_gb), ranks_of(job)
    where = "on its device" if n_ranks == 1 else f"on each of its {n_ranks} devices"
    line = f"memory: {job.name} needs about {need} GB {where}, the most of all trainings"
    if len(job.steps) > 1:
        line += f"; {len(job.steps)} members that share a reader need it {len(job.steps)} times at once"
    if job.cost.shards_gb and (job.cost.memory_gb or 0) >= WORTH_DEALING_GB:
        offers = ", ".join(f"{_shown(gb)} GB on each of {shards}" for shards, gb in job.cost.shards_gb)
        line += f"; a device that has less: training.shards=R deals the latents to R devices ({offers})"
    return line


def refuse_what_does_not_fit(steps: Sequence[Step], store: Path, *, device: str) -> None:
    """ValueError where an unfinished training needs more than the memory of `device`, or of R such devices.

    On a CPU all processes of a training share the memory of the machine.
    """
    job, available = largest_training(steps, store), device_gb(device)
    if job is None or available is None:
        return
    at_once = ranks_of(job) if device.startswith("cpu") else 1
    need = at_once * (job.cost.memory_gb or 0)
    if need <= available:
        return
    offer = ""
    fitting = [offered for offered in job.cost.shards_gb if offered[1] <= available]
    if fitting and not device.startswith("cpu"):
        shards, each = fitting[0]
        offer = f"training.shards={shards} on {shards} such GPUs ({_shown(each)} GB on each), "
    raise ValueError(
        f"{job.name} needs about {_shown(need)} GB of memory (weights, moments, gradients, one "
        f"batch), and {device} has {_shown(available)} GB; give {offer}a smaller dictionary.n_latents or "
        "training.batch_size, training.optimizer=adam_8bit on a GPU, or a larger device"
    )


def ranks_of(job: Job) -> int:
    """Processes of its training (`training.devices` x `training.shards`)."""
    training = getattr(job.steps[0].inputs, "training", None)
    return training.n_ranks() if isinstance(training, TrainingSettings) else 1


def device_gb(device: str) -> float | None:
    """Memory of the GPU, or of this machine for `cpu`, in GB; None where unknown."""
    if device.startswith("cuda"):
        import torch

        index = int(device.partition(":")[2] or 0)
        return torch.cuda.get_device_properties(index).total_memory / 1e9
    meminfo = Path("/proc/meminfo")
    lines = meminfo.read_text().splitlines() if meminfo.is_file() else []
    kib = next((int(line.split()[1]) for line in lines if line.startswith("MemTotal:")), None)
    return None if kib is None else kib * 1024 / 1e9


def _shown(gb: float | None) -> str:
    return "?" if gb is None else f"{gb:,.1f}" if gb >= 0.1 else "<0.1"
