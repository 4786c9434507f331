"""One training step: ours, the dense one with the same mathematics, and the bare encoder product.

python -m crossdiff.bench step d_model=512 n_latents=16384 k=64 batch=2048
python -m crossdiff.bench step members=4 d_model=512 n_latents=2048 k=16 batch=1024
python -m crossdiff.bench step shards=2 d_model=512 n_latents=65536 k=64 batch=1024
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, model_validator

from crossdiff.core.sparse.backends import Backend, kernels
from crossdiff.core.sparse.kernels import collect, wait
from crossdiff.settings import Settings
from experiments.bench.contenders import Encode, Workload, dense_step, encoder_product, sparse_step
from experiments.bench.members import MembersWork, compare
from experiments.bench.memory import peak_mb
from experiments.bench.roofline import Roofline, account
from experiments.bench.shards import compare_shards

ENCODE: dict[str, Encode] = {"fp32": "float32", "bf16": "bfloat16"}


class StepBench(Settings):
    """Sizes and repetitions; `key=value` on the command line.

    rounds: every contender runs once per round, so that a busy machine disturbs all alike.
    memory: also measure peak resident sets, each in a fresh process; on a GPU peak allocations, in this one.
    members: above 1, the answer is instead what so many crosscoders trained together for `steps` steps cost
    and read, against as many alone.
    shards: above 1, the answer is instead what each of so many processes that share the latents holds and
    sends in `steps` steps (`training.shards`), against one process.
    device: on cuda the answer also holds the step's roofline (`bench roofline`, with an H200's rates).
    """

    d_model: int = Field(default=512, ge=1)
    n_latents: int = Field(default=16384, ge=1)
    k: int = Field(default=64, ge=1)
    batch: int = Field(default=2048, ge=1)
    n_models: int = Field(default=2, ge=1)
    dead_share: float = Field(default=0.1, gt=0, lt=1)
    rounds: int = Field(default=7, ge=1)
    threads: int = Field(default=2, ge=1)
    memory: bool = True
    dense: bool = True
    device: Literal["cpu", "cuda"] = "cpu"
    members: int = Field(default=1, ge=1)
    shards: int = Field(default=1, ge=1)
    steps: int = Field(default=20, ge=2)

    @model_validator(mode="after")
    def _is_there(self) -> StepBench:
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError(
                "device=cuda: this machine has no CUDA GPU; give device=cpu, or use one that has"
            )
        return self

    def workload(self) -> Workload:
        """Weights, activations and shared Adam moments of this size."""
        names = ("d_model", "n_latents", "k", "batch", "n_models", "device")
        return Workload(**{name: getattr(self, name) for name in names})


def main(overrides: list[str]) -> dict:
    """Medians and minima of interleaved rounds (wall and CPU seconds), ratios to the fp32 product, memory."""
    bench = StepBench.model_validate(dict(item.split("=", 1) for item in overrides))
    torch.set_num_threads(bench.threads)
    if bench.members > 1:
        names = ("d_model", "n_latents", "k", "batch", "members", "steps")
        sizes = MembersWork(**{name: getattr(bench, name) for name in names})
        return {"sizes": bench.model_dump(), "machine": machine(), **compare(sizes, rounds=bench.rounds)}
    if bench.shards > 1:
        names = ("d_model", "n_latents", "k", "batch", "n_models", "threads")
        sizes = {name: getattr(bench, name) for name in names}
        figures = compare_shards(sizes, shards=bench.shards, steps=bench.steps)
        return {"sizes": bench.model_dump(), "machine": machine(), **figures}
    work = bench.workload()
    contenders = _contenders(bench, work)
    samples = _interleave(contenders, rounds=bench.rounds)
    result = {
        "sizes": bench.model_dump(),
        "machine": machine(),
        "backend": kernels("auto", bench.device).name,
    }
    wall = {name: statistics.median(wall for wall, _ in runs) for name, runs in samples.items()}
    product = wall["encoder_fp32"]
    result |= {f"{name}_s": seconds for name, seconds in wall.items()}
    result["ratio"] = {name: seconds / product for name, seconds in wall.items()}
    result["ratio_of_minima"] = _ratios(samples, pick=0)
    result["ratio_of_cpu_minima"] = _ratios(samples, pick=1)
    result["parts_ms"] = {
        name: breakdown(contenders[name]) for name in contenders if name.startswith(("step_", "auxk_"))
    }
    if bench.device == "cuda":
        result |= _on_gpu(bench, contenders)
    elif bench.memory:
        del work, contenders
        result |= _memory(bench)
    return result


def _on_gpu(bench: StepBench, contenders: dict[str, Callable[[], None]]) -> dict[str, object]:
    """Peak allocations of every contender, MB, beside the roofline of this step."""
    peaks = {}
    for name, run in contenders.items():
        torch.cuda.reset_peak_memory_stats()
        run()
        peaks[f"peak_mb_{name}"] = torch.cuda.max_memory_allocated() / 1e6
    names = ("d_model", "n_models", "n_latents", "k", "batch")
    return {**peaks, "roofline": account(Roofline(**{name: getattr(bench, name) for name in names}))}


def _contenders(bench: StepBench, work: Workload) -> dict[str, Callable[[], None]]:
    alone = kernels("auto", bench.device).name == "torch"
    backends: dict[str, Backend] = {"": "auto"} if alone else {"": "auto", "_torch": "torch"}
    figures = {
        f"encoder_{name}": encoder_product(work, getattr(torch, dtype)) for name, dtype in ENCODE.items()
    }
    if bench.dense:
        figures["dense"] = dense_step(work)
    for suffix, backend in backends.items():
        for name, dtype in ENCODE.items():
            figures[f"step_{name}{suffix}"] = sparse_step(work, encode=dtype, backend=backend)
            figures[f"auxk_{name}{suffix}"] = sparse_step(
                work, encode=dtype, backend=backend, n_dead=round(bench.dead_share * bench.n_latents)
            )
    return figures


def _interleave(
    contenders: dict[str, Callable[[], None]], *, rounds: int, warm_up: int = 2
) -> dict[str, list[tuple[float, float]]]:
    """(wall, CPU) seconds of every contender and round."""
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for number in range(warm_up + rounds):
        for name, run in contenders.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            wait()
            if number >= warm_up:
                samples[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return samples


def _ratios(samples: dict[str, list[tuple[float, float]]], *, pick: int) -> dict[str, float]:
    best = {name: min(run[pick] for run in runs) for name, runs in samples.items()}
    return {name: value / best["encoder_fp32"] for name, value in best.items()}


def breakdown(run: Callable[[], None], *, repeats: int = 3) -> dict[str, float]:
    """Milliseconds per step in each named part."""
    with collect() as parts:
        for _ in range(repeats):
            run()
    return {name: seconds / repeats * 1000 for name, seconds in parts.items()}


def _memory(bench: StepBench) -> dict[str, float]:
    """Peak resident sets of fresh processes, MB, beside weights + gradients + two moments."""
    sizes = {
        name: getattr(bench, name) for name in ("d_model", "n_latents", "k", "batch", "n_models", "threads")
    }
    kinds = ["step", "step_bf16", "step_torch", *(["dense"] if bench.dense else [])]
    figures = {f"peak_mb_{kind}": peak_mb(kind, sizes) for kind in kinds}
    parameters = bench.n_latents * (2 * bench.n_models * bench.d_model + 1) + bench.n_models * bench.d_model
    return {**figures, "state_mb": 4 * 4 * parameters / 1e6}


def machine() -> dict[str, str | int]:
    """Processor, cores, instruction sets that matter, load."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown"
    )
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), [])
    wanted = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    return {
        "processor": model,
        "gpu": gpu,
        "system": platform.platform(),
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "instructions": " ".join(wanted),
        "torch": torch.__version__,
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
    }
