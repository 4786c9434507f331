"""The sparse step with its latents dealt to several processes (gloo): memory and bytes sent per process."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import distributed

from crossdiff.core.collective import arrange
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.shard import CrosscoderShard, Shard
from crossdiff.core.sparse import SparseRowAdam
from crossdiff.core.sparse.sharded import ShardedBatchTopKStep, norm_over_shards
from crossdiff.core.sparse.step import SHARE
from crossdiff.io.environment import peak_memory_mb
from experiments.bench.contenders import RATE, Workload
from experiments.bench.memory import peak_mb


def compare_shards(sizes: dict[str, int], *, shards: int, steps: int) -> dict[str, Any]:
    """Peak MB of one process with all latents and of each of `shards`; MB that each sends, beside the sum.

    `sizes` are those of `bench.memory.peak_mb`. The processes share the threads.
    """
    one = peak_mb("step", sizes, steps=steps)
    share = sizes | {"threads": max(1, sizes["threads"] // shards)}
    program = "import sys; from experiments.bench.shards import child; child(*sys.argv[1:])"
    with TemporaryDirectory() as folder:
        given = [f"{folder}/meet", json.dumps(share), str(steps), str(shards)]
        ranks = [
            subprocess.Popen(
                [sys.executable, "-c", program, str(rank), *given], stdout=subprocess.PIPE, text=True
            )
            for rank in range(shards)
        ]
        reports = [json.loads(rank.communicate()[0].strip().splitlines()[-1]) for rank in ranks]
    peak, sent = max(report["peak_mb"] for report in reports), max(report["sent_mb"] for report in reports)
    table = sent_mb(sizes, shards)
    return {
        "peak_mb_one": one,
        "peak_mb_ranks": [report["peak_mb"] for report in reports],
        "peak_ratio": peak / one,
        "sent_mb_per_step": sent,
        "table_mb_per_step": table,
        "sent_ratio": sent / table,
        "seconds_per_step": max(report["seconds"] for report in reports),
    }


def sent_mb(sizes: dict[str, int], shards: int) -> float:
    """MB that a process sends per step by docs/performance.md: scaled codes, and sums of reconstructions."""
    codes = (shards - 1) * math.ceil(SHARE * sizes["k"] / shards) * sizes["batch"]
    sums = 2 * (shards - 1) / shards * sizes["batch"] * sizes["n_models"] * sizes["d_model"]
    return 4 * (codes + sums) / 1e6


class ShardWorkload(Workload):
    """The same activations, for one block of the latents."""

    def __init__(self, shard: Shard, **sizes: int) -> None:
        self.shard = shard
        super().__init__(n_latents=shard.n_latents, **sizes)  # type: ignore[arg-type]

    def __post_init__(self) -> None:
        dictionary = DictionarySettings(n_latents=self.n_latents, initial_norm=1.0)
        self.crosscoder = CrosscoderShard(
            dictionary, shard=self.shard, n_models=self.n_models, d_model=self.d_model
        )
        self.crosscoder.initialise_(torch.Generator().manual_seed(0))
        generator = torch.Generator().manual_seed(1)
        self.batches = [self._activations(generator) for _ in range(4)]


def child(rank: str, meet: str, sizes: str, steps: str, shards: str) -> None:
    """One of the processes; prints its peak, what it sent and how long a step took (after a first one)."""
    values, n_steps = json.loads(sizes), int(steps)
    torch.set_num_threads(values.pop("threads"))
    distributed.init_process_group(
        "gloo", init_method=f"file://{meet}", rank=int(rank), world_size=int(shards)
    )
    arrange(int(shards))
    work = ShardWorkload(Shard(int(rank), int(shards), values.pop("n_latents")), **values)
    step, plan = ShardedBatchTopKStep(), work.plan()
    optimizer = SparseRowAdam(
        work.crosscoder.parameters(), lr=RATE, max_norm=1.0,
        norm=lambda: norm_over_shards(work.crosscoder),
    )  # fmt: skip

    def run(number: int) -> None:
        step.gradients(work.crosscoder, work.batches[number % 4], plan)
        optimizer.step()
        optimizer.zero_grad()

    run(0)
    before, began = _written_mb(), time.perf_counter()
    for number in range(1, n_steps + 1):
        run(number)
    report = {
        "peak_mb": peak_memory_mb(),
        "sent_mb": (_written_mb() - before) / n_steps,
        "seconds": (time.perf_counter() - began) / n_steps,
    }
    print(json.dumps(report), flush=True)


def _written_mb() -> float:
    """What this process has handed to the kernel in write calls so far; gloo sends with those alone."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("wchar:"))) / 1e6
