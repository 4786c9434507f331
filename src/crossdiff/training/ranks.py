"""A function called in several processes that work as the ranks of one run, on one node or several."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

import torch
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes

from crossdiff.io.environment import is_full_disk, raised_by_us
from crossdiff.training.nodes import TELL_SECONDS, Call, Nodes, join_nodes, nodes_here
from crossdiff.training.told import FAILED, begin_folder, raise_told, read_told, tell, tell_full_disk


def in_ranks(function: Callable[..., Any], arguments: tuple[Any, ...], *, n_ranks: int) -> Any:
    """What `function` (picklable, like its arguments and result) returns in the first of `n_ranks` processes.

    A ValueError of ours, or lack of memory, in any of them is raised here. No process outlives this call.
    """
    return _told(_rank, (function, arguments), n_ranks=n_ranks)[0]


def in_every_rank(function: Callable[..., Any], arguments: tuple[Any, ...], *, n_ranks: int) -> list[Any]:
    """Results of `function(rank, *arguments)` of every rank, in the order of ranks (one node)."""
    return _told(_every_rank, (function, arguments), n_ranks=n_ranks)


def _told(function: Callable[..., None], arguments: tuple[Any, ...], *, n_ranks: int) -> list[Any]:
    with ended_at_last() as processes:
        started = begin_ranks(function, arguments, n_ranks=n_ranks)
        processes.extend(started.processes)
        told = finish_ranks(started)
    return [result for _, result in sorted(told, key=lambda item: item[0])]


@dataclass(frozen=True)
class Started:
    """The processes of this node, the folder into which they write results and errors, and its lock."""

    context: Any
    told: Path
    in_use: IO[str]

    @property
    def processes(self) -> list[Any]:
        """One per rank of this node."""
        return self.context.processes


def begin_ranks(function: Callable[..., None], arguments: tuple[Any, ...], *, n_ranks: int) -> Started:
    """Start this node's ranks of `function(rank, *arguments, told)`; other nodes start theirs."""
    nodes = nodes_here()
    nodes.refuse_failed()
    call = Call(function, arguments, n_ranks, nodes.address(), free_port(everywhere=nodes.n_nodes > 1))
    nodes.ranks_here(n_ranks)
    if nodes.n_nodes > 1:
        nodes.give(call)
    return start_call(call, nodes)


def start_call(call: Call, nodes: Nodes) -> Started:
    """Start the ranks of a call that this node has."""
    told, in_use = begin_folder()
    context = start_processes(
        _begin, (call, nodes, told), nprocs=nodes.ranks_here(call.n_ranks), join=False, start_method="spawn"
    )
    assert context is not None
    return Started(context, told, in_use)


def finish_ranks(started: Started, *, watch: Callable[[], None] = lambda: None) -> list[Any]:
    """Wait for this node's ranks, calling `watch` now and then; returns what they wrote, the earliest first.

    On the first of several nodes an error of another node is raised here, once the ranks of this node ended.
    """
    nodes, ended = nodes_here(), False
    try:
        while not ended:
            ended = started.context.join(timeout=0.1)
            watch()
            if not ended and nodes.has_failed():
                started.context.join(timeout=2)  # a rank of this node may be the cause
                nodes.refuse_failed()
        return read_told(started.told)
    except (ProcessExitedException, ProcessRaisedException, EOFError) as error:  # or torch had no room
        raise_told(started.told, [process.exitcode for process in started.processes])
        if was_killed(error):
            refuse_killed(started.processes)
        nodes.refuse_failed(seconds=TELL_SECONDS)
        raise
    finally:
        kill(started.processes)
        shutil.rmtree(started.told, ignore_errors=True)
        started.in_use.close()


def kill(processes: list[Any]) -> None:
    """Kill the processes that still run: they may ignore TERM, and have nothing left to save."""
    for process in processes:
        if process.is_alive():
            process.kill()


def was_killed(error: Exception) -> bool:
    """Whether the first process that failed was killed: torch itself kills the other ones."""
    return getattr(error, "exit_code", None) == -signal.SIGKILL


def refuse_killed(processes: list[Any]) -> None:
    """ValueError where one of the ended processes was killed: the others cannot go on without it."""
    killed = [n for n, process in enumerate(processes) if process.exitcode == -signal.SIGKILL]
    if killed:
        raise ValueError(
            f"process {killed[0]} of {len(processes)} was killed, perhaps for lack of memory, and the others "
            "stopped with it; give the same command again, or fewer devices"
        )


def _begin(local_rank: int, call: Call, nodes: Nodes, told: Path) -> None:
    try:
        enter(local_rank, call, nodes)
        call.function(nodes.own * nodes.ranks_here(call.n_ranks) + local_rank, *call.arguments, told)
    except Exception as error:
        if is_full_disk(error):
            leave(tell_full_disk(told, error))
        raise


def _rank(rank: int, function: Callable[..., Any], arguments: tuple[Any, ...], told: Path) -> None:
    result = _refusing(function, arguments, told)
    if rank == 0:
        tell(told, (rank, result))
    leave()


def _every_rank(rank: int, function: Callable[..., Any], arguments: tuple[Any, ...], told: Path) -> None:
    tell(told, (rank, _refusing(function, (rank, *arguments), told)))
    leave()


def _refusing(function: Callable[..., Any], arguments: tuple[Any, ...], told: Path) -> Any:
    """Result of the function; a ValueError of ours or lack of memory is reported, and ends the process."""
    if "SLURM_JOB_ID" in os.environ:  # SLURM may signal every process of a step; the first one acts on it
        for number in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
    try:
        return function(*arguments)
    except ValueError as error:
        if not raised_by_us(error):
            raise
        tell(told, ValueError(str(error)))
        leave(FAILED)
    except (MemoryError, torch.OutOfMemoryError) as error:
        tell(told, MemoryError(str(error)))
        leave(FAILED)


def enter(local_rank: int, call: Call, nodes: Nodes) -> None:
    """In a new process: what Lightning needs to find the others, and a share of the threads.

    On several nodes these are the variables that srun would have set, had it started every rank.
    """
    join_nodes(nodes)
    n_here = nodes.ranks_here(call.n_ranks)
    os.environ |= {
        "LOCAL_RANK": str(local_rank),
        "NODE_RANK": str(nodes.own),
        "WORLD_SIZE": str(call.n_ranks),
    }
    os.environ |= {"MASTER_ADDR": call.address, "MASTER_PORT": str(call.port)}
    if nodes.n_nodes > 1:
        rank = nodes.own * n_here + local_rank
        os.environ |= {"SLURM_NTASKS": str(call.n_ranks), "SLURM_NTASKS_PER_NODE": str(n_here)}
        os.environ |= {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(local_rank)}
        os.environ |= {"SLURM_NODEID": str(nodes.own), "SLURM_NNODES": str(nodes.n_nodes)}
    torch.set_num_threads(max(1, torch.get_num_threads() // n_here))


def leave(code: int = 0) -> NoReturn:
    """End a rank that is done, or has saved, without the shutdown of Python.

    Threads that torch's process group still has abort that now and again ("terminate called without an active
    exception"), or wait for the other ranks, which wait for this one.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def free_port(*, everywhere: bool = False) -> int:
    """A port of this machine that nobody listens on: for processes of this machine, or of others too."""
    with socket.socket() as listener:
        listener.bind(("" if everywhere else "127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def ended_at_last() -> Iterator[list[Any]]:
    """A list for processes, all of which end with the block, whatever ends it.

    TERM ends it like an error, unless TERM has a handler (submitit's).
    """
    ours = threading.current_thread() is threading.main_thread()
    ours = ours and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    processes: list[Any] = []
    try:
        yield processes
    finally:
        kill(processes)
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
