"""Resources as sbatch options, and what sbatch says when it refuses them."""

from __future__ import annotations

import math
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from crossdiff.command_settings import SlurmDispatch
from crossdiff.dispatch.profile import load_profile, resolve
from crossdiff.pipeline.jobs import Job
from crossdiff.stages.protocol import Resources, Stage

SOURCES = shlex.quote(str(Path(__file__).resolve().parents[2]))
"""Where this package is imported from, so that the node runs the same code."""

PYTHON = shlex.join(["sh", "-c", "trap '' TERM USR2; exec \"$@\"", "sh", sys.executable])
"""This Python, with the signals of preemption and time limits ignored until submitit's handlers are there.

By default they end a process, and one that dies while it imports counts as failed: SLURM would cancel what
waits for it. A job that is evicted before it has begun has nothing to save and is queued again.
"""


def stage_resources(stages: Iterable[Stage], dispatch: SlurmDispatch, *, device: str) -> dict[str, Resources]:
    """Resources of each stage; `device=cpu` asks for no GPU unless the command line names some."""
    profile = load_profile(dispatch.profile)
    found = {stage.name: resolve(stage, dispatch, profile) for stage in stages}
    if device != "cpu":
        return found
    named = {stage for stage, own in dispatch.stages.items() if own.gpus is not None}
    if dispatch.gpus is not None:
        return found
    return {
        stage: own if stage in named else own.model_copy(update={"gpus": 0}) for stage, own in found.items()
    }


def parameters(
    name: str, resources: Resources, after: Sequence[str], dispatch: SlurmDispatch
) -> dict[str, Any]:
    """sbatch options in submitit's words; the job starts once the jobs in `after` have ended well."""
    cpus = resources.cpus or 1
    extra: dict[str, Any] = {"requeue": True}
    if after:
        extra |= {"dependency": "afterok:" + ":".join(after), "kill-on-invalid-dep": "yes"}
    options = {
        "partition": resources.partition,
        "account": resources.account,
        "qos": resources.qos,
        "constraint": resources.constraint,
        "gpus_per_node": resources.gpus or None,
        "mem": f"{math.ceil(resources.memory_gb * 1024)}MB" if resources.memory_gb else None,
        "array_parallelism": resources.array_parallelism,
    }
    return {key: value for key, value in options.items() if value is not None} | {
        "job_name": re.sub(r"[^\w.+-]+", "-", f"crossdiff-{name}")[:64],
        "time": max(1, math.ceil((resources.hours or 1) * 60)),
        "cpus_per_task": cpus,
        "setup": [f"export PYTHONPATH={SOURCES}${{PYTHONPATH:+:$PYTHONPATH}}", *(resources.setup or ())],
        "signal_delay_s": dispatch.signal_seconds,
        "stderr_to_stdout": True,
        "srun_args": [f"--cpus-per-task={cpus}"],
        "additional_parameters": extra,
    }


def refusal(error: str, job: Job, resources: Resources) -> str:
    """What sbatch said, what was asked, and how to ask for something else."""
    told = [line.strip() for line in re.findall(r"sbatch: (?:error: )?(.*)", error)] or error.splitlines()[:1]
    asked = {
        name: value
        for name, value in resources
        if name in ("partition", "account", "qos", "constraint", "gpus", "cpus", "memory_gb", "hours")
        and value is not None
    }
    words = ", ".join(f"{name}={value}" for name, value in asked.items())
    return (
        f"sbatch refused {job.name}: {'; '.join(dict.fromkeys(told))}. It asked for {words}; nothing of this "
        f"command stays queued. Name another with dispatch.partition=... (or dispatch.stages.{job.stage}"
        ".partition=...; the same for the others) or in a profile; sinfo -s and sacctmgr list what there is"
    )
