"""A sweep planned, merged and submitted by the command line, with a stub in place of SLURM or with SLURM.

python -m crossdiff.bench submit grid_points=200
"""

from __future__ import annotations

import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal

from pydantic import Field

from crossdiff.settings import Settings
from experiments.bench.step import machine

STUB = Path(__file__).resolve().parents[2] / "slurm" / "stub"
SMALL = ("dispatch.gpus=0", "dispatch.cpus=1", "dispatch.memory_gb=1")
PAIRS, LAYERS = ("pt_it", "pt_simpo"), (10, 20)


class SubmitBench(Settings):
    """`grid_points` runs: two pairs, two layers, and as many seeds as that takes.

    scheduler: `stub` takes jobs and never starts them, `real` is the sbatch on the PATH; its jobs ask for
    one CPU, are submitted with --hold, so that none starts, and are cancelled afterwards.
    """

    grid_points: int = Field(default=200, ge=4, multiple_of=4)
    scheduler: Literal["stub", "real"] = "stub"


def main(overrides: list[str]) -> dict:
    """Seconds of `action=plan`, of the submission (plan and merge included) and of a second one."""
    bench = SubmitBench.model_validate(dict(item.split("=", 1) for item in overrides))
    with tempfile.TemporaryDirectory() as folder:
        environment = _environment(bench, Path(folder))
        grid = _grid(bench, Path(folder))
        planned, plan = _timed([*grid, "action=plan"], environment)
        submitted, submit = _timed(grid, environment)
        again, second = _timed(grid, environment)
        counted = _cancelled([*grid, "action=cancel"], environment) if bench.scheduler == "real" else {}
    n_jobs, n_steps = _counts(submitted)
    return {
        "sizes": bench.model_dump(),
        "machine": machine(),
        "n_steps": n_steps,
        "n_jobs": n_jobs,
        "n_steps_planned": int(re.findall(r"of (\d+) steps finished", planned)[-1]),
        "n_jobs_again": _counts(again)[0],
        **counted,
        "plan": plan,
        "plan_and_submit": submit,
        "submit_again": second,
        "jobs_per_s": n_jobs / submit["wall_s"],
        "load_average": os.getloadavg()[0],
    }


def _grid(bench: SubmitBench, folder: Path) -> list[str]:
    seeds = bench.grid_points // (len(PAIRS) * len(LAYERS))
    return [
        "-m", f"model_pair={','.join(PAIRS)}", f"layer={','.join(map(str, LAYERS))}",
        f"seed=range({seeds})", "dispatch=slurm", f"store={folder}/store",
        *(SMALL if bench.scheduler == "real" else ()),
    ]  # fmt: skip


def _environment(bench: SubmitBench, folder: Path) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    if bench.scheduler == "real":
        return environment | {"PATH": f"{_held_sbatch(folder)}:{os.environ['PATH']}"}
    if not STUB.is_dir():
        raise ValueError(f"{STUB} is missing; run this benchmark in a checkout, or give scheduler=real")
    state = folder / "stub"
    state.mkdir()
    (state / "next").write_text("1\n")
    return environment | {"STUB_SLURM": str(state), "PATH": f"{STUB}:{os.environ['PATH']}"}


def _held_sbatch(folder: Path) -> Path:
    """A folder with an sbatch that adds --hold (no variable does) and hands everything to the real one."""
    real = shutil.which("sbatch")
    if real is None:
        raise ValueError(
            "scheduler=real needs sbatch on the PATH; slurm/local_cluster.sh up starts a SLURM here"
        )
    held = folder / "held" / "sbatch"
    held.parent.mkdir()
    held.write_text(f'#!/bin/sh\nexec {shlex.quote(real)} --hold "$@"\n')
    held.chmod(0o755)
    return held.parent


def _timed(arguments: list[str], environment: dict[str, str]) -> tuple[str, dict[str, float]]:
    """What the command printed; its wall seconds, and its CPU seconds with those of the sbatch it calls."""
    started, before = time.perf_counter(), _cpu_seconds()
    done = subprocess.run(
        [sys.executable, "-m", "crossdiff", *arguments],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise ValueError(
            f"crossdiff {' '.join(arguments)} ended with {done.returncode}: {done.stderr[-2000:]}"
        )
    return done.stdout, {"wall_s": time.perf_counter() - started, "cpu_s": _cpu_seconds() - before}


def _cancelled(arguments: list[str], environment: dict[str, str]) -> dict[str, int]:
    told, _ = _timed(arguments, environment)
    return {"n_jobs_cancelled": int(re.findall(r"(\d+) jobs cancelled", told)[-1])}


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _counts(told: str) -> tuple[int, int]:
    """Jobs and steps that a submission reports."""
    counted = re.search(r"(\d+) jobs submitted for (\d+) steps", told)
    assert counted is not None, told[-2000:]
    return int(counted.group(1)), int(counted.group(2))
