"""What SLURM says about jobs: squeue for what it still holds, sacct for what is over."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

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
    """Phase of one job, SLURM's own words for it and, once over, its exit code and signal."""

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
            f"dispatch=slurm needs {', '.join(missing)} on the PATH, and there is none; run this on a login "
            "node of the cluster, use dispatch=local, or start a one-machine SLURM: slurm/local_cluster.sh up"
        )


def job_states(jobs: Iterable[str]) -> dict[str, JobState]:
    """State of every job; `gone` when neither squeue nor sacct knows it."""
    wanted = sorted(set(jobs))
    found: dict[str, JobState] = {}
    for part in _parts(wanted):
        found |= _squeue(part)
    for part in _parts([job for job in wanted if job not in found]):
        found |= _sacct(part)
    return {job: found.get(job, JobState("gone")) for job in wanted}


def exit_code(job: str) -> str | None:
    """`code:signal` of a job that is over, None when nobody remembers."""
    asked = _ask(["scontrol", "show", "job", "-o", job]) or ""
    found = re.search(r"\bExitCode=(\d+:\d+)", asked)
    if found:
        return found.group(1)
    asked = (_ask(["sacct", "-n", "-P", "-X", "-j", job, "-o", "ExitCode"]) or "").strip()
    return asked.splitlines()[-1] if asked else None


def cancel(jobs: Sequence[str]) -> None:
    """Take jobs out of the queue; those that are over are left as they are."""
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
    found = {}
    for line in text.splitlines():
        job, state, reason = (cell.strip() for cell in line.split("|", 2))
        name = state.split()[0] if state else ""
        found[job] = JobState(_PHASES.get(name, "failed"), name, "" if reason == "None" else reason)
    return found


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
