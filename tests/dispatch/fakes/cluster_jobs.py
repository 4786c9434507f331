"""Watching and disturbing jobs of a real SLURM."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from crossdiff.dispatch.graph import graph_table, read_graph
from crossdiff.dispatch.register import Register
from crossdiff.dispatch.slurm import Submission
from crossdiff.pipeline.steps import Step

SCRIPT = Path(__file__).resolve().parents[3] / "slurm" / "local_cluster.sh"


def settle(asked: Submission, *, seconds: float = 400) -> dict[str, str]:
    """State of every step by name once nothing is queued; requeued jobs start soon."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        graph = read_graph(asked.steps, asked.runtime.store)
        if not any(node.is_queued for node in graph):
            return {node.step.name: node.state for node in graph}
        release()
        time.sleep(1)
    pytest.fail(f"still queued after {seconds} s:\n{graph_table(graph)}")


def release() -> None:
    """SLURM holds requeued jobs for 120 s."""
    subprocess.run([SCRIPT, "kick"], check=False)


def running(asked: Submission, step: Step, *, units: int, seconds: float = 200) -> str:
    """Job id of the step, once it runs and has written that many units."""
    draft = step.folder(asked.runtime.store).with_name(f".{step.key}.draft")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        graph = read_graph(asked.steps, asked.runtime.store)
        (node,) = [node for node in graph if node.step.key == step.key]
        if node.state == "running" and len(list(draft.glob("unit_*"))) >= units:
            assert node.entry is not None
            return node.entry.job
        assert node.state in ("running", "waiting"), node
        release()
        time.sleep(0.3)
    pytest.fail(f"{step.name} did not reach {units} units within {seconds} s")


def worker(job: str, *, but: int = 0, seconds: float = 200) -> int:
    """Process id of the Python that works for the job, other than `but`, which is on its way out."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes().split(b"\0")
                environment = (folder / "environ").read_bytes().split(b"\0")
                forked = _forked(folder)
            except OSError:
                continue
            python = command[0].rpartition(b"/")[2].startswith(b"python")
            ours = python and b"submitit.core._submit" in command and not forked
            if ours and f"SLURM_JOB_ID={job}".encode() in environment and int(folder.name) != but:
                return int(folder.name)
        release()
        time.sleep(0.2)
    pytest.fail(f"job {job} has no worker after {seconds} s")


def handles(process: int, number: signal.Signals) -> bool:
    """Whether the process has set a handler for the signal."""
    status = Path(f"/proc/{process}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], base=16)
    return bool(caught >> (number - 1) & 1)


def _forked(folder: Path) -> bool:
    """Whether the parent is a worker too: a child between fork and exec has its parent's command line."""
    parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
    return b"submitit.core._submit" in Path(f"/proc/{parent}/cmdline").read_bytes().split(b"\0")


def log_of(store: Path, step: Step) -> str:
    """The job's log."""
    return Register(store).read([step.key])[step.key].log.read_text()
