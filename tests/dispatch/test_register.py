"""Reading squeue and sacct."""

from pathlib import Path

import pytest

from crossdiff.dispatch import register
from crossdiff.dispatch.register import JobState


def command(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def test_what_squeue_has_forgotten_is_asked_of_sacct(commands: Path) -> None:
    command(commands, "squeue", "echo '1|RUNNING|None'; echo '2_0|PENDING|Dependency'")
    command(commands, "sacct", "echo '3|CANCELLED by 1000|None'; echo '4|OUT_OF_MEMORY|OutOfMemory'")
    assert register.job_states(["1", "2_0", "3", "4", "5"]) == {
        "1": JobState("running", "RUNNING"),
        "2_0": JobState("waiting", "PENDING", "Dependency"),
        "3": JobState("cancelled", "CANCELLED"),
        "4": JobState("failed", "OUT_OF_MEMORY", "OutOfMemory"),
        "5": JobState("gone"),
    }


def test_without_accounting_a_forgotten_job_is_gone(commands: Path) -> None:
    command(commands, "squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    command(commands, "sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    assert register.job_states(["7"]) == {"7": JobState("gone")}


def test_a_controller_that_does_not_answer_is_one_message(commands: Path) -> None:
    command(commands, "squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(ValueError, match=r"SLURM does not answer .*Unable to contact slurm controller"):
        register.job_states(["7"])


def test_a_dependency_that_never_comes_true_is_not_queued() -> None:
    assert not JobState("waiting", "PENDING", "DependencyNeverSatisfied").is_queued
    assert JobState("waiting", "PENDING", "Dependency").is_queued


def test_cancelling_the_jobs_of_somebody_else_says_so(commands: Path) -> None:
    command(
        commands, "scancel", "echo 'scancel: error: Kill job error on job id 7: Access/permission denied' >&2"
    )
    with pytest.raises(ValueError, match="only the owner of a job can cancel it"):
        register.cancel_jobs(["7"])
