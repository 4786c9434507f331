"""dispatch=slurm: the unfinished steps of a plan become SLURM jobs that wait for one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from crossdiff.command_settings import SlurmDispatch
from crossdiff.dispatch.graph import nearest, read_graph
from crossdiff.dispatch.loggers import Tracker
from crossdiff.dispatch.register import FOLDER, Register, cancel_jobs, require_slurm
from crossdiff.dispatch.remote import Publication, RemoteJob, RemotePart
from crossdiff.dispatch.sbatch import PYTHON, parameters, refusal, refuse_unfit_jobs, resources_of
from crossdiff.dispatch.store import prepare_store, warn_of_little_room
from crossdiff.pipeline.steps import Job, Step, group
from crossdiff.settings import Runtime
from crossdiff.stages.protocol import Resources

AT_ONCE = 6
"""sbatch calls that run side by side."""


@dataclass(frozen=True)
class Submission:
    """One command's request to SLURM; the runtime's `device` stays as given: the node decides on `auto`."""

    steps: Sequence[Step]
    publications: Sequence[Publication]
    runtime: Runtime
    dispatch: SlurmDispatch
    tracker: Tracker


@dataclass
class Submitted:
    """Job id of every queued step, and the steps that this command submitted."""

    jobs: dict[str, str] = field(default_factory=dict)
    new: list[tuple[Job, str]] = field(default_factory=list)


def submit(asked: Submission) -> Submitted:
    """Submit steps that are neither finished nor queued, parents first; returns at once."""
    require_slurm()
    resources = resources_of(asked.steps, asked.dispatch, device=asked.runtime.device)
    refuse_unfit_jobs(asked.steps, asked.runtime, resources)
    prepare_store(asked.runtime.store)
    warn_of_little_room(asked.steps, asked.runtime.store)
    register = Register(asked.runtime.store)
    with register.locked():
        graph = read_graph(asked.steps, asked.runtime.store)
        result = Submitted({node.step.key: node.entry.job for node in graph if node.is_queued and node.entry})
        todo = [node.step for node in graph if node.state not in ("finished", "running", "waiting")]
        _Submitter(asked, resources, register, frozenset(step.key for step in todo)).run(todo, result)
    return result


class _Submitter:
    """Submits jobs stage by stage, several at once, and cancels all when SLURM refuses one."""

    def __init__(
        self,
        asked: Submission,
        resources: Mapping[tuple[bool, str], Resources],
        register: Register,
        new: frozenset[str],
    ) -> None:
        self.asked, self.resources, self.register, self.new = asked, resources, register, new
        self.store = asked.runtime.store.absolute()
        self.runtime = asked.runtime.model_copy(update={"store": self.store})

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
                    cancel_jobs([number for _, number in result.new])
                    raise failures[0]

    def submit(self, job: Job, known: Mapping[str, str]) -> str:
        """Queue one job of the plan and record it; returns the id of the SLURM job that ends it."""
        resources, after = self.resources[job.is_imported, job.stage], self.after(job, known)
        parts: list[Any] = []
        n_tasks = self.asked.dispatch.harvest_tasks
        merges_only = False
        shards = job.steps[0].definition.shards
        if n_tasks > 1 and shards is not None and shards.applies(job.inputs):
            part = RemotePart(job, runtime=self.runtime, n_gpus=resources.gpus or 0)
            parts = self.sbatch(job, [part] * n_tasks, resources, after)
            after = [parts[0].job_id.split("_")[0]]
            merges_only = bool(resources.gpus) and self.runtime.device != "cpu"
            resources = resources.model_copy(update={"gpus": 0})
        (last,) = self.sbatch(job, [self.remote(job, resources, merges_only)], resources, after)
        logs = {part.job_id: part.paths.stdout for part in parts}
        self.register.write(job.steps, last.job_id, last.paths.stdout, parts=logs)
        return last.job_id

    def sbatch(self, job: Job, calls: list[Any], resources: Resources, after: Sequence[str]) -> list[Any]:
        """One sbatch, an array when there are several calls; returns submitit's jobs."""
        from submitit import SlurmExecutor
        from submitit.core.utils import FailedJobError

        executor = SlurmExecutor(
            self.store / FOLDER / "%j", max_num_timeout=self.asked.dispatch.max_timeouts, python=PYTHON
        )
        executor.update_parameters(**parameters(job.name, resources, after, self.asked.dispatch))
        try:
            return executor.submit_array(calls)
        except FailedJobError as error:
            raise ValueError(refusal(str(error), job, resources)) from None

    def remote(self, job: Job, resources: Resources, merges_only: bool) -> RemoteJob:
        """What the node will run."""
        keys_of_job = {step.key for step in job.steps}
        publications = [item for item in self.asked.publications if item.report.key in keys_of_job]
        return RemoteJob(
            job,
            runtime=self.runtime,
            n_gpus=resources.gpus or 0,
            n_nodes=resources.nodes or 1,
            tracker=self.asked.tracker,
            publications=tuple(
                replace(item, results=item.results.absolute(), new=self.new) for item in publications
            ),
            merges_only=merges_only,
        )

    def after(self, job: Job, known: Mapping[str, str]) -> list[str]:
        """Ids of the jobs that must succeed first."""
        parents = {parent.key: parent for step in job.steps for parent in step.parents.values()}
        waiting = [step for step in parents.values() if not step.is_finished(self.store)]
        lost = [step.name for step in waiting if step.key not in known]
        if lost:
            raise ValueError(
                f"{job.name} needs {', '.join(lost)}, which is neither finished nor queued any more; "
                "run the same command again"
            )
        return sorted({known[step.key] for step in nearest(waiting)}, key=int)
