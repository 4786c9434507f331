"""Jobs in several processes: who waits for whom, what a refusal and a killed process leave."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from crossdiff.dispatch.side_by_side import _interrupt, run_side_by_side
from crossdiff.models.pair import is_folder
from crossdiff.pipeline.steps import Job, Step
from crossdiff.settings import Settings


class Inputs(Settings):
    text: str = ""


def jobs() -> list[Job]:
    """Tokens, then three trainings that stand on them, then one scaling of the first."""
    tokens = Step("tokens", "toy", Inputs())
    trains = [Step("train", name, Inputs(text=name), {"tokens": tokens}) for name in ("a", "b", "c")]
    scale = Step("scale", "a", Inputs(), {"train": trains[0]})
    return [Job((step,)) for step in (tokens, *trains, scale)]


def work(job: Job, folder: Path) -> list[str]:
    """Write when the job began and ended; `a` and `b` wait for one another, so each ends beside the other."""
    began = time.monotonic()
    (folder / f"{job.name}.began").touch()
    other = {"train a": "train b", "train b": "train a"}.get(job.name, job.name)
    while not (folder / f"{other}.began").exists():
        time.sleep(0.01)
    (folder / job.name).write_text(f"{began} {time.monotonic()} {os.getpid()}")
    return [job.name]


def refuse(job: Job, folder: Path) -> list[str]:
    if job.name == "train a":
        (folder / "train a.began").touch()
        is_folder("/no/such/folder")
    return work(job, folder)


def break_off(job: Job, folder: Path) -> list[str]:
    if job.name == "train a":
        (folder / "train a.began").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return work(job, folder)


def bug(job: Job, folder: Path) -> list[str]:
    return [str(int("none"))] if job.name == "tokens toy" else []


def run(folder: Path, what: Callable) -> tuple[list[str], list[str], str | None]:
    """What was done, what was refused, and the error."""
    done: list[str] = []
    refused: list[str] = []
    error = None
    try:
        run_side_by_side(
            jobs(), partial(what, folder=folder), n_processes=2, done=done.extend,
            failed=lambda job, _: refused.append(job.name),
        )  # fmt: skip
    except ValueError as raised:
        error = str(raised)
    return done, refused, error


def test_what_stands_on_finished_steps_runs_at_the_same_time(tmp_path: Path) -> None:
    done, refused, error = run(tmp_path, work)
    assert (sorted(done), refused, error) == (sorted(job.name for job in jobs()), [], None)
    times = {name: [float(part) for part in (tmp_path / name).read_text().split()] for name in done}
    assert times["tokens toy"][1] <= min(times[f"train {name}"][0] for name in "abc")
    assert times["train a"][1] <= times["scale a"][0]
    assert len({times[name][2] for name in ("train a", "train b", "tokens toy")}) == 3
    assert times["tokens toy"][2] == os.getpid(), "without company a job runs here"


def test_a_refusal_lets_the_running_jobs_end_and_nothing_else_begin(tmp_path: Path) -> None:
    done, refused, error = run(tmp_path, refuse)
    assert refused == ["train a"]
    assert str(error).startswith("model folder /no/such/folder does not exist")
    assert "scale a" not in done
    assert "train b" in done


def test_a_killed_process_ends_in_a_message_that_names_the_jobs(tmp_path: Path) -> None:
    _, refused, error = run(tmp_path, break_off)
    assert refused == []
    assert error is not None
    assert "a process was killed while" in error
    assert "train a" in error
    assert "dispatch.processes=1" in error


def test_a_process_that_has_ended_needs_no_interruption() -> None:
    process = multiprocessing.get_context("spawn").Process(target=int)
    process.start()
    process.join()
    _interrupt(process)


def test_a_bug_keeps_its_own_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        run_side_by_side(
            jobs()[:1], partial(bug, folder=tmp_path), n_processes=2, done=print, failed=lambda *_: None
        )
