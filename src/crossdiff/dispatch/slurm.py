"""dispatch=slurm: the unfinished steps of a plan become SLURM jobs that wait for one another."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from crossdiff.dispatch import queue
from crossdiff.dispatch.graph import nearest, read_graph
from crossdiff.dispatch.profile import load_profile
from crossdiff.dispatch.register import FOLDER, Register
from crossdiff.dispatch.remote import Publication, RemoteJob
from crossdiff.dispatch.store import prepare_store
from crossdiff.dispatch.track import Tracker
from crossdiff.io.resources import Resources, SlurmDispatch, StageName, resolve
from crossdiff.pipeline.jobs import Job, group
from crossdiff.pipeline.steps import Step
from crossdiff.settings import Runtime

SOURCES = shlex.quote(str(Path(__file__).resolve().parents[2]))
"""Where this package is imported from, so that the node runs the same code."""
AT_ONCE = 6
"""sbatch calls that run side by side."""


@dataclass(frozen=True)
class Submission:
    """What one command asks of SLURM; the runtime's `device` is as asked for: the node decides on `auto`."""

    steps: Sequence[Step]
    publications: Sequence[Publication]
    runtime: Runtime
    dispatch: SlurmDispatch
    tracker: Tracker


@dataclass
class Submitted:
    """Job id of every step that is on its way, and which of them this command submitted."""

    jobs: dict[str, str] = field(default_factory=dict)
    new: list[tuple[Job, str]] = field(default_factory=list)


def submit(asked: Submission) -> Submitted:
    """Submit what is neither finished nor queued, parents first; returns at once."""
    queue.require_slurm()
    resources = stage_resources(asked.dispatch, device=asked.runtime.device)
    prepare_store(asked.runtime.store)
    register = Register(asked.runtime.store)
    with register.locked():
        graph = read_graph(asked.steps, asked.runtime.store)
        result = Submitted({node.step.key: node.entry.job for node in graph if node.is_queued and node.entry})
        todo = [node.step for node in graph if node.state not in ("finished", "running", "waiting")]
        _Submitter(asked, resources, register, frozenset(step.key for step in todo)).run(todo, result)
    return result


def stage_resources(dispatch: SlurmDispatch, *, device: str) -> dict[StageName, Resources]:
    """Resources of every stage; `device=cpu` asks for no GPU unless the command line names some."""
    profile = load_profile(dispatch.profile)
    found = {stage: resolve(stage, dispatch, profile) for stage in get_args(StageName)}
    if device != "cpu":
        return found
    named = {stage for stage, own in dispatch.stages.items() if own.gpus is not None}
    if dispatch.gpus is not None:
        return found
    return {
        stage: own if stage in named else own.model_copy(update={"gpus": 0}) for stage, own in found.items()
    }


class _Submitter:
    """Submits jobs stage by stage, several at once, and takes all back when SLURM refuses one."""

    def __init__(
        self,
        asked: Submission,
        resources: Mapping[StageName, Resources],
        register: Register,
        new: frozenset[str],
    ) -> None:
        self.asked, self.resources, self.register, self.new = asked, resources, register, new
        self.store = asked.runtime.store.absolute()

    def run(self, steps: Sequence[Step], result: Submitted) -> None:
        from submitit.helpers import clean_env

        stages: dict[str, list[Job]] = {}
        for job in group(steps):
            stages.setdefault(job.stage, []).append(job)
        with clean_env(), ThreadPoolExecutor(AT_ONCE) as pool:
            for jobs in stages.values():
                known = dict(result.jobs)
                futures = [pool.submit(self.submit, job, known) for job in jobs]
                failures = []
                for job, future in zip(jobs, futures, strict=True):
                    if (error := future.exception()) is not None:
                        failures.append(error)
                        continue
                    result.new.append((job, future.result()))
                    result.jobs |= {step.key: future.result() for step in job.steps}
                if failures:
                    queue.cancel([number for _, number in result.new])
                    raise failures[0]

    def submit(self, job: Job, known: Mapping[str, str]) -> str:
        """One sbatch; returns the job id and records it."""
        from submitit import SlurmExecutor
        from submitit.core.utils import FailedJobError

        resources = self.resources[job.stage]  # type: ignore[index]
        executor = SlurmExecutor(self.store / FOLDER / "%j", max_num_timeout=self.asked.dispatch.max_timeouts)
        executor.update_parameters(**self.parameters(job, resources, self.after(job, known)))
        try:
            submitted = executor.submit(self.remote(job, resources))
        except FailedJobError as error:
            raise ValueError(refusal(str(error), job, resources)) from None
        self.register.write(job.steps, submitted.job_id, submitted.paths.stdout)
        return submitted.job_id

    def remote(self, job: Job, resources: Resources) -> RemoteJob:
        """What the node will run."""
        own = {step.key for step in job.steps}
        publications = [item for item in self.asked.publications if item.report.key in own]
        return RemoteJob(
            job,
            runtime=self.asked.runtime.model_copy(update={"store": self.store}),
            n_gpus=resources.gpus or 0,
            tracker=self.asked.tracker,
            publications=tuple(
                replace(item, results=item.results.absolute(), new=self.new) for item in publications
            ),
        )

    def after(self, job: Job, known: Mapping[str, str]) -> list[str]:
        """Job ids that have to end well first."""
        parents = {parent.key: parent for step in job.steps for parent in step.parents.values()}
        waiting = [step for step in parents.values() if not step.is_finished(self.store)]
        lost = [step.name for step in waiting if step.key not in known]
        if lost:
            raise ValueError(
                f"{job.name} needs {', '.join(lost)}, which is neither finished nor queued any more; "
                "run the same command again"
            )
        return sorted({known[step.key] for step in nearest(waiting)}, key=int)

    def parameters(self, job: Job, resources: Resources, after: Sequence[str]) -> dict[str, Any]:
        """sbatch options in submitit's words."""
        dispatch, cpus = self.asked.dispatch, resources.cpus or 1
        extra: dict[str, Any] = {"requeue": True}
        if after:
            extra |= {"dependency": "afterok:" + ":".join(after), "kill-on-invalid-dep": "yes"}
        options = {
            "job_name": re.sub(r"[^\w.+-]+", "-", f"crossdiff-{job.name}")[:64],
            "time": max(1, math.ceil((resources.hours or 1) * 60)),
            "cpus_per_task": cpus,
            "mem": f"{math.ceil(resources.memory_gb * 1024)}MB" if resources.memory_gb else None,
            "gpus_per_node": resources.gpus or None,
            "partition": resources.partition,
            "account": resources.account,
            "qos": resources.qos,
            "constraint": resources.constraint,
            "setup": [f"export PYTHONPATH={SOURCES}${{PYTHONPATH:+:$PYTHONPATH}}", *(resources.setup or ())],
        }
        return {name: value for name, value in options.items() if value is not None} | {
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
