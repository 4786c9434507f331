"""Memory that a training needs on its device: a plan shows it, a run that does not fit is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.sparsity import AnySparsity, BatchTopK
from crossdiff.pipeline.steps import Job, Step, group
from crossdiff.training.settings import TrainingSettings

PRODUCT_CHUNK = 4096
"""Latents of the encoder product in memory at a time (`core.sparse.step`)."""
DENSE_MATRICES = 4
"""[token, latent] matrices that autograd keeps in a dense step: codes, scaled codes, mask, gradient."""


def training_gb(
    dictionary: DictionarySettings, sparsity: AnySparsity, training: TrainingSettings, *, d_model: int
) -> float:
    """Largest memory of one process of a pair's training, GB: the sum in docs/performance.md.

    Every process of `training.devices` holds all weights, moments and gradients, and its part of the batch.
    """
    width = d_model if dictionary.architecture == "diff_sae" else 2 * d_model
    n_tokens = training.batch_size // (training.devices * training.accumulate)
    weights = 4 * (dictionary.n_latents * (2 * width + 1) + width)
    moments = weights // 2 if training.optimizer == "adam_8bit" else 2 * weights
    sparse = type(sparsity) is BatchTopK and training.step != "dense"
    kept = sparsity.k * training.batch_size if isinstance(sparsity, BatchTopK) else dictionary.n_latents
    rows = min(dictionary.n_latents, kept) if sparse else dictionary.n_latents
    gradients = weights * rows // dictionary.n_latents
    columns = min(PRODUCT_CHUNK, dictionary.n_latents) if sparse else DENSE_MATRICES * dictionary.n_latents
    batch = 4 * n_tokens * (4 * width + columns)  # activations, normalised, reconstruction, residual
    return (weights + moments + gradients + batch) / 1e9


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
    need = _shown(job.cost.memory_gb)
    line = f"memory: {job.name} needs about {need} GB on its device, the most of all trainings"
    if len(job.steps) > 1:
        line += f"; {len(job.steps)} members that share a reader need it {len(job.steps)} times at once"
    return line


def refuse_what_does_not_fit(steps: Sequence[Step], store: Path, *, device: str) -> None:
    """ValueError where an unfinished training needs more than the memory of `device`."""
    job, available = largest_training(steps, store), device_gb(device)
    if job is None or available is None or (job.cost.memory_gb or 0) <= available:
        return
    raise ValueError(
        f"{job.name} needs about {_shown(job.cost.memory_gb)} GB of memory (weights, moments, gradients, one "
        f"batch), and {device} has {_shown(available)} GB; give a smaller dictionary.n_latents or "
        "training.batch_size, training.optimizer=adam_8bit on a GPU, or a larger device"
    )


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
