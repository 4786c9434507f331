"""Run the jobs of a plan in several processes: jobs whose parents are finished run at the same time.

Jobs start in the order of the plan. Every process has a share of the CPU's threads and, where there are
several accelerators, one of them; a job without others to run beside it has this process and all its threads.
After a refused job (ValueError) the running ones still end and are kept; Ctrl-C and TERM stop all.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from crossdiff.io.environment import raised_by_us
from crossdiff.pipeline.steps import Job

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess
    from multiprocessing.queues import Queue

Made = TypeVar("Made")
"""What became of one step."""
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Refusal:
    """A job's ValueError; other errors cross the processes unchanged."""

    text: str


def run_side_by_side(
    jobs: Sequence[Job],
    run: Callable[[Job], list[Made]],
    *,
    n_processes: int,
    done: Callable[[list[Made]], object],
    failed: Callable[[Job, ValueError], object],
) -> None:
    """Call `run` (picklable) on every job once its parents are done, and `done` after each.

    After a refused job `failed` is called, no other starts, and once the running ones have ended the first
    refusal is raised (ValueError); a killed process, perhaps for lack of memory, is raised likewise.
    """
    waiting, running = list(jobs), dict[Future, Job]()
    refused: str | None = None

    def take(job: Job, outcome: list[Made] | Refusal) -> None:
        nonlocal refused
        if isinstance(outcome, Refusal):
            failed(job, ValueError(outcome.text))
            refused = refused or outcome.text
        else:
            done(outcome)

    with _processes(n_processes, n_devices := _n_devices()) as pool:
        while running or (waiting and refused is None):
            ready = [] if refused else _ready(waiting, running.values())
            if len(ready) == 1 and not running and not n_devices:
                waiting.remove(ready[0])
                take(ready[0], _attempt(run, ready[0]))  # without company: here, with all threads
                continue
            for job in ready[: n_processes - len(running)]:
                waiting.remove(job)
                running[pool.submit(_in_process, run, job)] = job
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                take(job, _result(future, [job, *running.values()]))
    if refused is not None:
        raise ValueError(refused)


def _ready(waiting: Sequence[Job], running: Iterable[Job]) -> list[Job]:
    """Jobs whose parents are all done."""
    open_keys = {step.key for job in (*waiting, *running) for step in job.steps}
    return [
        job
        for job in waiting
        if not any(parent.key in open_keys for step in job.steps for parent in step.parents.values())
    ]


def _result(future: Future[list[Made] | Refusal], jobs: Sequence[Job]) -> list[Made] | Refusal:
    try:
        return future.result()
    except BrokenProcessPool:
        names = ", ".join(job.name for job in jobs)
        raise ValueError(
            f"a process was killed while {names} ran, perhaps for lack of memory: every process holds "
            "its own models and activations; run again with dispatch.processes=1 (finished steps are kept)"
        ) from None


def _n_devices() -> int:
    import torch

    return torch.cuda.device_count()  # does not start CUDA, so a process can still choose one


@contextmanager
def _processes(n_processes: int, n_devices: int) -> Iterator[ProcessPoolExecutor]:
    """A pool whose processes do not outlive an error, Ctrl-C or TERM; training saves its state first."""
    import torch

    spawn = multiprocessing.get_context("spawn")
    numbers: Queue[int] = spawn.Queue()
    for number in range(n_processes):
        numbers.put(number)
    given = (numbers, max(1, torch.get_num_threads() // n_processes), n_devices)
    pool = ProcessPoolExecutor(n_processes, spawn, initializer=_settle, initargs=given)
    try:
        with _ending_on_term():
            yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            _interrupt(process)
        raise
    pool.shutdown()


def _interrupt(process: BaseProcess) -> None:
    """INT, not TERM, on which training inside SLURM goes on; the process may have ended by itself."""
    with suppress(ProcessLookupError):
        if process.pid is not None:
            os.kill(process.pid, signal.SIGINT)


@contextmanager
def _ending_on_term() -> Iterator[None]:
    """TERM ends the block like an error, so that it can clean up; only in a main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _settle(numbers: Queue[int], n_threads: int, n_devices: int) -> None:
    """Set a new process' share of the threads and its accelerator, before it imports PyTorch.

    Ctrl-C reaches all processes of a terminal; one without a job leaves it to the parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    number = numbers.get()
    os.environ |= {"OMP_NUM_THREADS": str(n_threads), "MKL_NUM_THREADS": str(n_threads)}
    if n_devices > 1:
        known = os.environ.get(VISIBLE, ",".join(map(str, range(n_devices)))).split(",")
        os.environ[VISIBLE] = known[number % len(known)]


def _in_process(run: Callable[[Job], list[Made]], job: Job) -> list[Made] | Refusal:
    """Run the job with progress as lines that name it, because bars would overwrite each other."""
    from crossdiff.io import progress

    progress.title_lines(job.name)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return _attempt(run, job)
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))  # what cannot cross would look like a killed process
        except Exception:  # noqa: BLE001  whatever its class does
            raise RuntimeError(traceback.format_exc()) from None
        raise
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _attempt(run: Callable[[Job], list[Made]], job: Job) -> list[Made] | Refusal:
    try:
        return run(job)
    except ValueError as error:
        if raised_by_us(error):
            return Refusal(str(error))
        raise
