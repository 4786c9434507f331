"""Resources of a stage, from the command and the profile `slurm/<cluster>.yaml`, as sbatch options."""

from __future__ import annotations

import difflib
import math
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from crossdiff.command_settings import SlurmDispatch, StageResources
from crossdiff.pipeline.steps import Job, Step, group
from crossdiff.settings import Runtime
from crossdiff.stages.protocol import Resources, Stage

SOURCES = shlex.quote(str(Path(__file__).resolve().parents[2]))
"""Where this package is imported from, so that the node runs the same code."""

PYTHON = shlex.join(["sh", "-c", "trap '' TERM USR2; exec \"$@\"", "sh", sys.executable])
"""This Python, with the signals of preemption and time limits ignored until submitit's handlers are there.

By default they end a process, and one that dies while it imports counts as failed: SLURM would cancel what
waits for it. A job that is evicted before it has begun has nothing to save and is queued again.
"""


TASKS_WAIT = 600
"""Seconds that the tasks of a job's nodes go on without one that has ended."""


def stage_resources(stages: Iterable[Stage], dispatch: SlurmDispatch, *, device: str) -> dict[str, Resources]:
    """Resources of each stage; `device=cpu` asks for no GPU unless the command line names some."""
    profile = load_profile(dispatch.profile)
    resources_of = {stage.name: resolve(stage, dispatch, profile) for stage in stages}
    if device != "cpu":
        return resources_of
    named = {stage for stage, asked in dispatch.stages.items() if asked.gpus is not None}
    if dispatch.gpus is not None:
        return resources_of
    return {
        stage: asked if stage in named else asked.model_copy(update={"gpus": 0})
        for stage, asked in resources_of.items()
    }


def parameters(
    name: str, resources: Resources, after: Sequence[str], dispatch: SlurmDispatch
) -> dict[str, Any]:
    """sbatch options in submitit's words; the job starts once the jobs in `after` have ended well."""
    cpus, nodes = resources.cpus or 1, resources.nodes or 1
    # a task that cannot start ends alone, so that the first one can say so; without a lost one none goes on
    together = ["--kill-on-bad-exit=0", f"--wait={TASKS_WAIT}"] if nodes > 1 else []
    extra: dict[str, Any] = {"requeue": True}
    if after:
        extra |= {"dependency": "afterok:" + ":".join(after), "kill-on-invalid-dep": "yes"}
    options = {
        "partition": resources.partition,
        "account": resources.account,
        "qos": resources.qos,
        "constraint": resources.constraint,
        "nodes": nodes if nodes > 1 else None,
        "ntasks_per_node": 1 if nodes > 1 else None,
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
        "srun_args": [f"--cpus-per-task={cpus}", *together],
        "additional_parameters": extra,
    }


def refusal(error: str, job: Job, resources: Resources) -> str:
    """What sbatch said, what was asked, and how to ask for something else."""
    told = [line.strip() for line in re.findall(r"sbatch: (?:error: )?(.*)", error)] or error.splitlines()[:1]
    asked = {
        name: value
        for name, value in resources
        if name
        in ("partition", "account", "qos", "constraint", "nodes", "gpus", "cpus", "memory_gb", "hours")
        and value is not None
    }
    words = ", ".join(f"{name}={value}" for name, value in asked.items())
    return (
        f"sbatch refused {job.name}: {'; '.join(dict.fromkeys(told))}. It asked for {words}; nothing of this "
        f"command stays queued. Name another with dispatch.partition=... (or dispatch.stages.{job.stage}"
        ".partition=...; the same for the others) or in a profile; sinfo -s and sacctmgr list what there is"
    )


PACKAGE = Path(__file__).resolve().parents[1]
FOLDERS = (PACKAGE.parents[1] / "slurm", PACKAGE / "slurm")


class Profile(Resources):
    """What is particular to a cluster (`slurm/<cluster>.yaml`): for all stages, and for single ones."""

    stages: StageResources = Field(default_factory=dict)


def resolve(stage: Stage, dispatch: SlurmDispatch, profile: Profile) -> Resources:
    """Resources of one stage: command line per stage, command line, profile per stage, profile, its own."""
    open_values = Resources()
    sources = (
        dispatch.stages.get(stage.name, open_values),
        dispatch,
        profile.stages.get(stage.name, open_values),
        profile,
        stage.resources,
    )
    resources = open_values
    for weaker in sources:
        resources = resources.over(weaker)
    return resources


def load_profile(name: str | None) -> Profile:
    """The profile of that name in `slurm/`, or of that file; an empty one for None."""
    if name is None:
        return Profile()
    path = find_profile(name)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"profile {path} is not YAML ({error}); see slurm/example.yaml") from None
    try:
        return Profile.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(_problem(problem) for problem in error.errors())
        raise ValueError(f"profile {path}: {problems}") from None


def find_profile(name: str) -> Path:
    """Path of a profile; ValueError lists those there are."""
    given = Path(name).expanduser()
    candidates = [given] if given.suffix in (".yaml", ".yml") else []
    candidates += [folder / f"{name}.yaml" for folder in FOLDERS]
    for path in candidates:
        if path.is_file():
            return path
    known = sorted({path.stem for folder in FOLDERS for path in folder.glob("*.yaml")})
    raise ValueError(
        f"dispatch.profile={name} is no cluster profile; there are {', '.join(known) or 'none'}, "
        "or give the path of a .yaml file (slurm/example.yaml explains the keys)"
    )


def _problem(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"] if part != "[key]")
    if problem["type"] == "extra_forbidden":
        return f"key {where} does not exist; {_near(problem['loc'])}"
    if problem["type"] == "value_error":
        return f"{where}: {problem['ctx']['error']}"
    return f"{where}={problem['input']!r}: {problem['msg']}"


def _near(location: Sequence[Any]) -> str:
    known = Resources.model_fields if len(location) > 1 else Profile.model_fields
    near = difflib.get_close_matches(str(location[-1]), known, n=3, cutoff=0.5)
    return f"did you mean {', '.join(near)}?" if near else f"keys are {', '.join(known)}"


Kind = tuple[bool, str]
"""Whether a step is imported, and its stage."""


def resources_of(steps: Sequence[Step], dispatch: SlurmDispatch, *, device: str) -> dict[Kind, Resources]:
    """What a job of each kind of step asks for; an imported step is one process, on one node."""
    kinds = {(step.is_imported, step.stage): step.definition for step in steps}
    asked = {
        kind: stage_resources([stage], dispatch, device=device)[stage.name] for kind, stage in kinds.items()
    }
    return {
        (imported, stage): one.model_copy(update={"nodes": None}) if imported else one
        for (imported, stage), one in asked.items()
    }


def refuse_unfit_jobs(steps: Sequence[Step], runtime: Runtime, resources: Mapping[Kind, Resources]) -> None:
    """ValueError where the processes of an unfinished step find too few GPUs, or do not fit its nodes."""
    for job in group([step for step in steps if not step.is_finished(runtime.store)]):
        refuse_unfit(job, runtime, resources[job.is_imported, job.stage])


def refuse_unfit(job: Job, runtime: Runtime, resources: Resources) -> None:
    """ValueError where that holds of one job."""
    n_nodes, n_gpus, of_stage = resources.nodes or 1, resources.gpus or 0, f"dispatch.stages.{job.stage}"
    count = job.steps[0].definition.ranks
    setting, n_ranks = count(job.inputs, runtime) if count else ("", 1)
    if n_nodes > 1 and n_ranks == 1:
        way_out = f"give {setting}={n_nodes} or a multiple, or " if count else ""
        raise ValueError(
            f"{job.name} is one process, and {of_stage}.nodes={n_nodes} nodes share the processes of a step; "
            f"{way_out}leave out nodes for {job.stage} (dispatch.stages.train.nodes=2 is that of train alone)"
        )
    if n_ranks % n_nodes:
        raise ValueError(
            f"{setting}={n_ranks} processes do not divide into {of_stage}.nodes={n_nodes}; give a multiple"
        )
    each = n_ranks // n_nodes
    if 0 < n_gpus < each:
        raise ValueError(
            f"{setting}={n_ranks} needs {each} GPU(s) on each of {n_nodes} node(s), and {job.name} asks for "
            f"{n_gpus}; give {of_stage}.gpus={each}, or a smaller {setting}"
        )
