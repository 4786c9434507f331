"""A function called in several processes of this machine that work as the ranks of one run."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes

from crossdiff.io.environment import raised_by_us

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue

FAILED = 3
"""Exit code of a rank whose ValueError the parent raises again."""


def in_ranks(function: Callable[..., Any], arguments: tuple[Any, ...], *, n_ranks: int) -> Any:
    """What `function` (picklable, like its arguments and result) returns in the first of `n_ranks` processes.

    A ValueError of ours, or lack of memory, in any of them is raised here. No process outlives this call.
    """
    told: SimpleQueue[bytes] = multiprocessing.get_context("spawn").SimpleQueue()
    context = start_processes(
        _rank, (function, arguments, n_ranks, free_port(), told), nprocs=n_ranks, join=False,
        start_method="spawn",
    )  # fmt: skip
    assert context is not None
    results: list[Any] = []
    with _ended_at_last(context.processes):
        try:
            ended = False
            while not ended:
                ended = context.join(timeout=0.1)
                results += _received(told)
        except (ProcessExitedException, ProcessRaisedException) as error:
            for result in (*results, *_received(told)):
                if isinstance(result, ValueError | MemoryError):
                    raise result from None
            if was_killed(error):
                refuse_killed(context.processes)
            raise
    return results[0]


def _received(told: SimpleQueue[bytes]) -> list[Any]:
    """What our own processes have told since the last call."""
    received = []
    while not told.empty():
        received.append(pickle.loads(told.get()))
    return received


def was_killed(error: Exception) -> bool:
    """Whether the first process that failed was killed: torch itself kills those that stay behind it."""
    return getattr(error, "exit_code", None) == -signal.SIGKILL


def refuse_killed(processes: list[Any]) -> None:
    """ValueError where one of the ended processes was killed: the others cannot go on without it."""
    killed = [n for n, process in enumerate(processes) if process.exitcode == -signal.SIGKILL]
    if killed:
        raise ValueError(
            f"process {killed[0]} of {len(processes)} was killed, perhaps for lack of memory, and the others "
            "stopped with it; give the same command again, or fewer devices"
        )


def _rank(
    rank: int,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    n_ranks: int,
    port: int,
    told: SimpleQueue[bytes],
) -> None:
    enter(rank, n_ranks, port)
    if "SLURM_JOB_ID" in os.environ:  # SLURM may signal every process of a step; the first one acts on it
        for number in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
    try:
        result = function(*arguments)
    except ValueError as error:
        if not raised_by_us(error):
            raise
        told.put(pickle.dumps(ValueError(str(error))))
        leave(FAILED)
    except (MemoryError, torch.OutOfMemoryError) as error:
        told.put(pickle.dumps(MemoryError(str(error))))
        leave(FAILED)
    if rank == 0:
        told.put(pickle.dumps(result))
    leave()


def enter(rank: int, n_ranks: int, port: int) -> None:
    """In a new process: what Lightning needs to find the others, and a share of the threads."""
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": str(n_ranks)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(max(1, torch.get_num_threads() // n_ranks))


def leave(code: int = 0) -> NoReturn:
    """End a rank that is done, or saved, without taking Python down.

    Threads that torch's process group still has abort that now and again ("terminate called without an active
    exception"), or wait for the other ranks, which wait for this one.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def check_gpus(device: str, n_devices: int, *, setting: str) -> None:
    """ValueError where the machine has fewer GPUs than `setting` asks for, or `device` is one of them."""
    if ":" in device and n_devices > 1:
        raise ValueError(f"{setting}={n_devices} and device={device}, which names one; give device=cuda")
    if device.startswith("cuda") and n_devices > torch.cuda.device_count():
        raise ValueError(
            f"{setting}={n_devices}, this machine has {torch.cuda.device_count()} GPUs; choose fewer devices"
        )


@contextmanager
def _ended_at_last(processes: list[Any]) -> Iterator[None]:
    """TERM ends the block like an error, unless it has a handler (submitit's); whatever ends it ends all."""
    ours = threading.current_thread() is threading.main_thread()
    ours = ours and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()  # TERM may be ignored, and a rank has nothing to save
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
