"""Harvest against the bare forward pass, disk rates, padding and memory.

python -m crossdiff.bench harvest d_model=256 n_blocks=8 layer=3 n_tokens=65536
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field

from crossdiff.data.harvest.job import PassCounts
from crossdiff.data.harvest.write import quantised
from crossdiff.data.settings import CacheSource
from crossdiff.io.environment import memory_at_rest_mb, peak_memory_mb
from crossdiff.models.load import TruncatedModel
from crossdiff.models.pair import Dtype
from crossdiff.settings import Settings
from experiments.bench.harvest_load import model_memory, toy_loading
from experiments.bench.harvest_work import Workload
from experiments.bench.shard_io import io_rates
from experiments.bench.step import machine


class HarvestBench(Settings):
    """Sizes and repetitions; `key=value` on the command line.

    rounds: every contender runs once per round, so that a busy machine disturbs all alike.
    passes: forward passes; io_gb: size of the disk benchmark (0 leaves it out); toy: loading beside
    a toy training step; memory: 1x and 10x the tokens, part of a model and the whole, in fresh processes.
    """

    d_model: int = Field(default=256, ge=64)
    n_blocks: int = Field(default=8, ge=1)
    layer: int = Field(default=3, ge=0)
    n_tokens: int = Field(default=65_536, ge=1)
    context: int = Field(default=512, ge=8)
    dtype: Dtype = "float32"
    batching: Literal["pack", "bucket"] = "pack"
    batch_tokens: int = Field(default=8192, ge=1)
    shard_tokens: int = Field(default=32_768, ge=1)
    device: str = "cpu"
    rounds: int = Field(default=5, ge=1)
    threads: int = Field(default=2, ge=1)
    io_gb: float = Field(default=4.4, ge=0)
    io_d_model: int = Field(default=512, ge=1)
    passes: bool = True
    toy: bool = True
    memory: bool = True
    folder: str | None = None

    def workload(self, folder: Path) -> Workload:
        """The model and tokens of these sizes in a scratch folder."""
        return Workload(
            folder=folder,
            d_model=self.d_model,
            n_blocks=self.n_blocks,
            layer=self.layer,
            n_tokens=self.n_tokens,
            context=self.context,
            dtype=self.dtype,
            source=CacheSource(
                batching=self.batching, batch_tokens=self.batch_tokens, shard_tokens=self.shard_tokens
            ),
            device=self.device,
        )


def main(overrides: list[str]) -> dict[str, Any]:
    """Seconds per pass (medians of interleaved rounds), ratios, padding, GB/s, peak memory."""
    bench = HarvestBench.model_validate(dict(item.split("=", 1) for item in overrides))
    torch.set_num_threads(bench.threads)
    folder = Path(tempfile.mkdtemp(prefix="crossdiff-bench-", dir=bench.folder))
    try:
        result = {"sizes": bench.model_dump(), "machine": machine()}
        if bench.passes:
            result |= _passes(bench, folder / "passes")
        if bench.io_gb:
            result |= io_rates(
                folder / "io",
                d_model=bench.io_d_model,
                n_bytes=round(bench.io_gb * 1e9),
                shard_tokens=131_072,
                rounds=min(3, bench.rounds),
            )
        if bench.toy:
            result |= toy_loading(folder / "toy", rounds=bench.rounds)
        if bench.memory:
            result |= _memory(bench, folder) | model_memory(folder / "load")
    finally:
        shutil.rmtree(folder)
    return result


def _passes(bench: HarvestBench, folder: Path) -> dict[str, Any]:
    work = bench.workload(folder)
    work.prepare()
    truncated, full = work.job.load_model(), work.full_model()
    figures: dict[str, Any] = {}
    contenders: dict[str, Callable[[], Any]] = {
        "bare": work.bare_pass(truncated),
        "harvest": lambda: figures.update(work.harvest(model=truncated)),
        "full": work.full_pass(full),
    }
    wall, cpu = _interleaved(contenders, rounds=bench.rounds)
    n_tokens = work.job.token_set.n_tokens
    return {
        "bare_s": wall["bare"],
        "harvest_s": wall["harvest"],
        "full_hidden_states_s": wall["full"],
        "harvest_tokens_per_s": n_tokens / wall["harvest"],
        "harvest_of_bare": wall["bare"] / wall["harvest"],
        "harvest_over_full": wall["full"] / wall["harvest"],
        "harvest_of_bare_cpu": cpu["bare"] / cpu["harvest"],
        "harvest_over_full_cpu": cpu["full"] / cpu["harvest"],
        "padding_share": figures["padding_share"],
        "padding_share_bucket": work.padding("bucket"),
        "padding_share_unsorted": work.padding("unsorted"),
        "int8_share_of_variance": _int8(work, truncated),
        "parameters_full_mb": _parameter_mb(full),
        "parameters_kept_mb": _parameter_mb(truncated.body),
    }


def _interleaved(
    contenders: dict[str, Callable[[], Any]], *, rounds: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Median wall and CPU seconds of every contender, after one round to warm up."""
    wall: dict[str, list[float]] = {name: [] for name in contenders}
    cpu: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, run in contenders.items():
            start, start_cpu = time.perf_counter(), time.process_time()
            run()
            if number:
                wall[name].append(time.perf_counter() - start)
                cpu[name].append(time.process_time() - start_cpu)
    return (
        {name: statistics.median(values) for name, values in wall.items()},
        {name: statistics.median(values) for name, values in cpu.items()},
    )


def _parameter_mb(module: torch.nn.Module) -> float:
    return sum(parameter.nbytes for parameter in module.parameters()) / 1e6


def _int8(work: Workload, model: TruncatedModel) -> float:
    """Share of the variance that int8 rows keep, over the first shard: the ceiling they put on an FVE."""
    shard = work.job.shards[0]
    x = work.job.harvester(model).shard(work.job.token_set, shard, PassCounts())[work.layer].float()
    stored = quantised(x)
    error = (x - stored["x"].float() * stored["scale"][:, None]).square().sum()
    return float(1 - error / (x - x.mean(0)).square().sum())


def _memory(bench: HarvestBench, folder: Path) -> dict[str, float]:
    """Resident set of a harvest over 1x and 10x the tokens, its peak and at the end, in fresh processes."""
    figures = {}
    for times in (1, 10):
        sizes = bench.model_copy(update={"n_tokens": times * bench.n_tokens})
        here = folder / f"{times}x"
        sizes.workload(here).prepare()
        program = "import sys; from experiments.bench.harvest import child; child(*sys.argv[1:])"
        command = [sys.executable, "-c", program, sizes.model_dump_json(), str(here)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peak, rest = map(float, done.stdout.strip().splitlines()[-1].split())
        figures |= {f"peak_mb_{times}x": peak, f"rest_mb_{times}x": rest}
    return figures


def child(sizes: str, folder: str) -> None:
    """Harvest once and print this process's peak and what it holds on to afterwards, in MB."""
    bench = HarvestBench.model_validate_json(sizes)
    torch.set_num_threads(bench.threads)
    bench.workload(Path(folder)).harvest()
    print(peak_memory_mb(), memory_at_rest_mb())
