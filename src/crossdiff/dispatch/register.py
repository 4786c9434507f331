"""The store's register of submissions (step -> SLURM job), and the states of those jobs.

squeue lists queued and running jobs, sacct finished ones.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from crossdiff.dispatch.store import user_name
from crossdiff.io.artifacts import lock
from crossdiff.io.tables import read_json, write_json
from crossdiff.pipeline.steps import Step
from crossdiff.settings import Settings

FOLDER = ".submitit"


class Entry(Settings):
    """One step's last submission."""

    step: str
    name: str
    job: str
    log: Path
    parts: dict[str, Path] = Field(default_factory=dict)
    """Tasks of the job array before it, each with its log; the job waits for them."""
    needs: tuple[str, ...] = ()
    """Keys of the steps whose jobs this one waits for."""
    user: str = ""
    submitted: str = ""


class Register:
    """`store/.submitit/steps/<step key>.json`, one file per step, each written aside and renamed."""

    def __init__(self, store: Path) -> None:
        self.folder = store.absolute() / FOLDER

    @property
    def exists(self) -> bool:
        """Whether the store has any submission."""
        return (self.folder / "steps").is_dir()

    def read(self, keys: Iterable[str]) -> dict[str, Entry]:
        """Entries of the steps that were submitted."""
        entries = {}
        for key in keys:
            path = self.folder / "steps" / f"{key}.json"
            try:
                entries[key] = Entry.model_validate(read_json(path))
            except FileNotFoundError:
                continue
            except (json.JSONDecodeError, ValueError) as error:
                raise ValueError(
                    f"{path} is not a readable submission record ({error}); remove it if no job of that step "
                    f"is queued: rm {path}"
                ) from None
        return entries

    def everything(self) -> dict[str, Entry]:
        """All entries of the store."""
        return self.read(path.stem for path in (self.folder / "steps").glob("*.json"))

    def write(self, steps: Iterable[Step], job: str, log: Path, *, parts: Mapping[str, Path]) -> None:
        """Record that `job`, after the array tasks `parts`, makes `steps`."""
        submitted = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        for step in steps:
            entry = Entry(
                step=step.key,
                name=step.name,
                job=job,
                log=log,
                parts=dict(parts),
                needs=tuple(parent.key for parent in step.parents.values()),
                user=user_name(os.getuid()),
                submitted=submitted,
            )
            write_json(entry.model_dump(mode="json"), self.folder / "steps" / f"{step.key}.json")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Only one process submits for a store at a time, so that no step is submitted twice."""
        (self.folder / "steps").mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("a") as handle:
            lock(handle, wait=True)
            yield


def last_lines(entry: Entry, *, n: int = 8) -> list[str]:
    """The end of the job's log, without submitit's own lines and blank ones."""
    try:
        text = entry.log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    lines = [line.rstrip() for line in text.replace("\r", "\n").splitlines()]
    told = [line for line in lines if line and not line.startswith(("submitit ", "srun: "))]
    return told[-n:]


def jobs_of(entries: Mapping[str, Entry]) -> set[str]:
    """Distinct job ids, those of array tasks included."""
    return {job for entry in entries.values() for job in (entry.job, *entry.parts)}


Phase = Literal["waiting", "running", "finished", "failed", "cancelled", "gone"]

_PHASES: dict[str, Phase] = {
    "COMPLETED": "finished",
    "CANCELLED": "cancelled",
    "RUNNING": "running",
    "COMPLETING": "running",
    "STAGE_OUT": "running",
    "PENDING": "waiting",
    "CONFIGURING": "waiting",
    "SUSPENDED": "waiting",
    "STOPPED": "waiting",
    "RESIZING": "waiting",
    "REQUEUED": "waiting",
    "REQUEUE_HOLD": "waiting",
    "REQUEUE_FED": "waiting",
    "SPECIAL_EXIT": "waiting",
}
_AT_ONCE = 400
_SECONDS = 120


@dataclass(frozen=True)
class JobState:
    """Phase of one job, SLURM's word for it and, once over, its exit code and signal."""

    phase: Phase
    state: str = ""
    reason: str = ""

    @property
    def is_queued(self) -> bool:
        """It runs, or will run."""
        return self.phase in ("waiting", "running") and self.reason != "DependencyNeverSatisfied"


def require_slurm() -> None:
    """ValueError unless jobs can be submitted from here."""
    missing = [command for command in ("sbatch", "srun", "squeue", "scancel") if not shutil.which(command)]
    if missing:
        raise ValueError(
            f"dispatch=slurm needs {', '.join(missing)} on the PATH; run this on a login "
            "node of the cluster, use dispatch=local, or start a one-machine SLURM: slurm/local_cluster.sh up"
        )


def job_states(jobs: Iterable[str]) -> dict[str, JobState]:
    """State of every job; `gone` when neither squeue nor sacct knows it."""
    wanted = sorted(set(jobs))
    states: dict[str, JobState] = {}
    for part in _parts(wanted):
        states |= _squeue(part)
    for part in _parts([job for job in wanted if job not in states]):
        states |= _sacct(part)
    return {job: states.get(job, JobState("gone")) for job in wanted}


def exit_code(job: str) -> str | None:
    """`code:signal` of a finished job, None where unknown."""
    asked = _ask(["scontrol", "show", "job", "-o", job]) or ""
    match = re.search(r"\bExitCode=(\d+:\d+)", asked)
    if match:
        return match.group(1)
    asked = (_ask(["sacct", "-n", "-P", "-X", "-j", job, "-o", "ExitCode"]) or "").strip()
    return asked.splitlines()[-1] if asked else None


def cancel_jobs(jobs: Sequence[str]) -> None:
    """Cancel jobs; finished ones stay as they are."""
    for part in _parts(jobs):
        done = _run(["scancel", *part])
        refused = [line for line in done.stderr.splitlines() if "denied" in line.lower()]
        if refused:
            raise ValueError(
                f"scancel was refused ({refused[0].strip()}); only the owner of a job can cancel it"
            )


def _parts(jobs: Sequence[str]) -> list[Sequence[str]]:
    return [jobs[start : start + _AT_ONCE] for start in range(0, len(jobs), _AT_ONCE)]


def _squeue(jobs: Sequence[str]) -> dict[str, JobState]:
    done = _run(["squeue", "-h", "-r", "-t", "all", "-j", ",".join(jobs), "-o", "%i|%T|%r"])
    if done.returncode and "Invalid job id" not in done.stderr:
        raise ValueError(
            f"SLURM does not answer (squeue: {done.stderr.strip() or done.returncode}); "
            "try again when its controller is back: scontrol ping"
        )
    return _read(done.stdout)


def _sacct(jobs: Sequence[str]) -> dict[str, JobState]:
    asked = _ask(["sacct", "-n", "-P", "-X", "-j", ",".join(jobs), "-o", "JobID,State,Reason"])
    return _read(asked or "")


def _read(text: str) -> dict[str, JobState]:
    entries = {}
    for line in text.splitlines():
        job, state, reason = (cell.strip() for cell in line.split("|", 2))
        name = state.split()[0] if state else ""
        entries[job] = JobState(_PHASES.get(name, "failed"), name, "" if reason == "None" else reason)
    return entries


def _ask(command: Sequence[str]) -> str | None:
    """Standard output, or None when the command is missing or fails."""
    if not shutil.which(command[0]):
        return None
    done = _run(command)
    return None if done.returncode else done.stdout


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise ValueError(
            f"{command[0]} did not answer within {_SECONDS} s; try again when SLURM's controller is back"
        ) from None
