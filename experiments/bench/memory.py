"""Peak resident set of a few training steps, measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import torch

from crossdiff.io.environment import peak_memory_mb
from experiments.bench.contenders import Workload, dense_step, sparse_step


def peak_mb(kind: str, sizes: dict[str, int], *, steps: int = 3) -> float:
    """Peak MB of a fresh process that runs `steps` steps of `kind` (dense, step, step_bf16, step_torch)."""
    program = "import sys; from experiments.bench.memory import child; child(*sys.argv[1:])"
    arguments = [kind, json.dumps(sizes), str(steps)]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    return float(done.stdout.strip().splitlines()[-1])


def child(kind: str, sizes: str, steps: str) -> None:
    """Run the steps and print the peak."""
    values = json.loads(sizes)
    torch.set_num_threads(values.pop("threads"))
    work = Workload(**values)
    match kind:
        case "dense":
            run = dense_step(work)
        case "step":
            run = sparse_step(work, encode="float32", backend="auto")
        case "step_bf16":
            run = sparse_step(work, encode="bfloat16", backend="auto")
        case "step_torch":
            run = sparse_step(work, encode="float32", backend="torch")
        case _:
            raise ValueError(f"{kind!r} is no kind of step; choose dense, step, step_bf16 or step_torch")
    for _ in range(int(steps)):
        run()
    print(peak_memory_mb())
