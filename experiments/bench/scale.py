"""Latent scaling of all latents, three targets, both probes, against one plain encode pass.

python -m crossdiff.bench scale d_model=256 n_latents=8192 k=32 n_tokens=65536
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.latent_scaling import ScalingSums, empty_sums
from crossdiff.settings import Settings


class ScaleBench(Settings):
    """Sizes and repetitions; `key=value` on the command line. `n_tokens` are cut into batches of `batch`."""

    d_model: int = Field(default=256, ge=1)
    n_latents: int = Field(default=8192, ge=1)
    k: int = Field(default=32, ge=1)
    batch: int = Field(default=4096, ge=1)
    n_tokens: int = Field(default=16384, ge=1)
    document_length: int = Field(default=256, ge=1)
    rounds: int = Field(default=5, ge=1)
    threads: int = Field(default=2, ge=1)


def main(overrides: list[str]) -> dict:
    """Medians of interleaved rounds, seconds per pass over the same tokens, wall and CPU, and state size."""
    bench = ScaleBench.model_validate(dict(item.split("=", 1) for item in overrides))
    torch.set_num_threads(bench.threads)
    crosscoder, x = workload(bench)
    document = torch.arange(len(x)) // bench.document_length
    sums = empty_sums(crosscoder, documents=True)

    def scale() -> None:
        for rows in torch.arange(len(x)).split(bench.batch):
            sums.add(crosscoder, x[rows[0] : rows[-1] + 1], document=document[rows])

    runs_of = _interleave(
        {"encode": lambda: encode_pass(crosscoder, x, bench.batch), "scale": scale}, bench.rounds
    )
    figures = {f"{name}_s": statistics.median(wall for wall, _ in runs) for name, runs in runs_of.items()}
    figures |= {f"{name}_cpu_s": statistics.median(cpu for _, cpu in runs) for name, runs in runs_of.items()}
    n_passes = bench.rounds + 1
    return {
        "sizes": bench.model_dump(),
        **figures,
        "ratio": figures["scale_s"] / figures["encode_s"],
        "cpu_ratio": figures["scale_cpu_s"] / figures["encode_cpu_s"],
        "l0": float(sums.n_active.sum()) / (n_passes * len(x)),
        "tokens_per_s": len(x) / figures["scale_s"],
        "weights_mb": sum(weights.nbytes for weights in crosscoder.parameters()) / 1e6,
        "state_mb": state_bytes(sums) / 1e6,
        "load_average": os.getloadavg()[0],
    }


def workload(bench: ScaleBench) -> tuple[Crosscoder, Tensor]:
    """Random weights and activations with a threshold that gives an L0 of about k."""
    generator = torch.Generator().manual_seed(0)
    crosscoder = Crosscoder(DictionarySettings(n_latents=bench.n_latents), n_models=2, d_model=bench.d_model)
    crosscoder.initialise_(generator)
    crosscoder.requires_grad_(requires_grad=False)
    x = torch.randn(bench.n_tokens, 2, bench.d_model, generator=generator)
    scaled = crosscoder.scaled(crosscoder.positive_code(x[:256])).flatten()
    kept = max(1, round(bench.k / bench.n_latents * len(scaled)))
    crosscoder.threshold.fill_(float(scaled.topk(kept).values[-1]))
    return crosscoder, x


def encode_pass(crosscoder: Crosscoder, x: Tensor, batch: int) -> None:
    """The yardstick: product, bias, ReLU and threshold, float32, and nothing else."""
    weights, norm = crosscoder.encoder.flatten(1).T, crosscoder.code_norm()
    floor = crosscoder.threshold / norm
    for part in x.flatten(1).split(batch):
        code = torch.addmm(crosscoder.encoder_bias, part, weights).relu_()
        code.masked_fill_(code <= floor, 0)


def state_bytes(sums: ScalingSums) -> int:
    """Bytes of the running sums, document counts included."""
    tensors = [value for value in vars(sums).values() if isinstance(value, Tensor)]
    return sum(tensor.nbytes for tensor in [*tensors, sums.documents.settled, *sums.documents.pairs])


def _interleave(
    contenders: dict[str, Callable[[], None]], rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """(wall, CPU) seconds per round; one warm-up round is thrown away."""
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, run in contenders.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            if number:
                samples[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return samples
