"""Callables inside SLURM jobs: one frozen job of the plan, resumed from its draft after a requeue."""

from __future__ import annotations

import atexit
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossdiff.dispatch import local
from crossdiff.dispatch.loggers import Tracker
from crossdiff.dispatch.register import FOLDER
from crossdiff.dispatch.store import draft_folder, missing_steps, prepare_store
from crossdiff.io.artifacts import read_manifest
from crossdiff.io.environment import allow_open_files, choose_device
from crossdiff.pipeline.results import publish_results
from crossdiff.pipeline.steps import Job, Step
from crossdiff.settings import Runtime


@dataclass(frozen=True)
class Publication:
    """The results folder of a report step, and the summary's rows of steps."""

    report: Step
    results: Path
    steps: tuple[Step, ...]
    new: frozenset[str] = frozenset()
    """Keys of the steps of this submission; the others were finished or queued before."""

    def publish(self, store: Path, tracker: Tracker) -> Path:
        """Copy the report's products, add the logger's files, return the page."""
        rows = [
            {
                "name": step.name,
                "key": step.key,
                "state": "done" if step.key in self.new else "reused",
                "seconds": read_manifest(step.folder(store))["seconds"],
            }
            for step in self.steps
        ]
        page = publish_results(self.report.folder(store), self.results, rows, store=store)
        tracker.published(self.results, rows, store)
        return page


@dataclass(frozen=True)
class RemoteJob:
    """Callable that submitit pickles; everything in it was frozen when it was submitted."""

    job: Job
    runtime: Runtime
    n_gpus: int
    tracker: Tracker
    publications: tuple[Publication, ...] = ()
    merges_only: bool = False
    """Whether tasks with GPUs harvest every shard before this job, which has none."""

    n_nodes: int = 1
    """Nodes of this job, each with a task that calls this; only the first makes the artifacts."""

    def __call__(self) -> list[str]:
        """Make the job's artifacts; returns their keys."""
        if self.n_nodes == 1:
            return self._make()
        from crossdiff.training.launch import lend_ranks, tell_first_node
        from crossdiff.training.nodes import leading, nodes_of_job

        nodes = nodes_of_job(self.n_nodes, self.runtime.store / FOLDER)
        nodes.sign_in()
        if not nodes.own:
            with leading(nodes):
                return self._make()
        try:
            self._begin()
            lend_ranks(nodes)
        except Exception as error:
            tell_first_node(nodes, error)
            raise
        return []

    def _begin(self) -> str:
        """What every task does first; the device of its node."""
        begin(self.job, self.runtime)
        return node_device(self.job, self.runtime.device, self.n_gpus)

    def _make(self) -> list[str]:
        device = self._begin()
        runtime = self.runtime.model_copy(update={"device": device, "n_devices": self._n_devices()})
        if self.merges_only:
            refuse_missing_shards(self._missing(), runtime)
        refuse_missing_parents(self.job, runtime)
        with self.tracker:
            for outcome in self._outcomes(runtime):
                self.tracker.step_finished(outcome, runtime.store)
        for publication in self.publications:
            print(f"report: {publication.publish(runtime.store, self.tracker)}", flush=True)
        return [step.key for step in self.job.steps]

    def _n_devices(self) -> int:
        """Devices that share a step: documents and matching take the GPUs of their job, or one process."""
        asked = self.runtime.n_devices
        return asked if self.job.steps[0].definition.ranks is not None else min(asked, max(1, self.n_gpus))

    def _outcomes(self, runtime: Runtime) -> list[local.Outcome]:
        """What was made; steps that go on from it do so although others of this job were refused."""
        try:
            return local.run_job(self._missing(), runtime)
        except local.PartlyRefused as refused:
            for name, error in refused.refused.items():
                print(f"{name} was refused: {error}", file=sys.stderr, flush=True)
            print("what stands on the others of this job goes on", file=sys.stderr, flush=True)
            return refused.made

    def checkpoint(self) -> Any:
        """The job for submitit to requeue: the same one, whose stage continues from its draft."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _missing(self) -> Job:
        return Job(missing_steps(self.job, self.runtime.store) or self.job.steps)


@dataclass(frozen=True)
class RemotePart:
    """One task of a job array: shards of a harvest that no other task has; the job after it publishes."""

    job: Job
    runtime: Runtime
    n_gpus: int

    def __call__(self) -> int:
        """Work in the draft folder of the job; returns the shards made here."""
        begin(self.job, self.runtime)
        store, step = self.runtime.store, self.job.steps[0]
        parents = {role: parent.folder(store) for role, parent in step.parents.items()}
        for folder in parents.values():
            local.check(folder)
        draft = draft_folder(self.job, store)
        draft.mkdir(parents=True, exist_ok=True)
        device = node_device(self.job, self.runtime.device, self.n_gpus)
        runtime = self.runtime.model_copy(update={"device": device})
        shards = step.definition.shards
        assert shards is not None
        return shards.make(self.job.inputs, parents, draft, runtime)

    def checkpoint(self) -> Any:
        """The task for submitit to requeue; finished shards are kept."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def begin(job: Job, runtime: Runtime) -> None:
    """Set up the process of a job or task on its node."""
    atexit.register(ignore_signals)
    allow_open_files()
    prepare_store(runtime.store)
    check_code(job.steps)


def ignore_signals() -> None:
    """Ignore signals once the work is done: Python drops its handlers before its modules.

    A time limit's signal would then end the process, and a finished job count as failed.
    """
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def node_device(job: Job, asked: str, n_gpus: int) -> str:
    """The device on this node; ValueError for a GPU job without a GPU."""
    if n_gpus == 0:
        return "cpu"
    device = choose_device(asked)
    if device == "cpu" and asked == "auto":
        raise ValueError(
            f"{job.name} was given {n_gpus} GPU(s), but torch sees no CUDA device on this "
            "node; install a torch build with CUDA, name another partition, or ask for device=cpu"
        )
    return device


def refuse_missing_shards(job: Job, runtime: Runtime) -> None:
    """Raise where array tasks left a shard: this job has no GPU for it.

    A task leaves shards that another has locked, and a file system may keep the lock of a task that died.
    """
    step = job.steps[0]
    if not missing_steps(job, runtime.store) or step.definition.shards is None:
        return
    parents = {role: parent.folder(runtime.store) for role, parent in step.parents.items()}
    draft = draft_folder(job, runtime.store)
    left = step.definition.shards.missing(job.inputs, parents, draft, runtime)
    if left:
        raise ValueError(
            f"{job.name}: the array tasks left {len(left):,} shards ({', '.join(left[:3])}"
            f"{', ...' if len(left) > 3 else ''}), which another task seemed to work on; this job only "
            "merges and has no GPU to harvest them: repeat the command with action=retry"
        )


def refuse_missing_parents(job: Job, runtime: Runtime) -> None:
    """ValueError where a step that this one stands on was refused while others of its job were made."""
    for step in missing_steps(job, runtime.store):
        for parent in step.parents.values():
            parent.finished_folder(runtime.store)


def check_code(steps: Sequence[Step]) -> None:
    """ValueError where the stage's version changed between submission and start."""
    for step in steps:
        if (now := step.key_now()) != step.key:
            raise ValueError(
                f"{step.name} was submitted as {step.key}, but the installed code makes it {now}: the stage "
                "changed in between; submit again with the same command"
            )
