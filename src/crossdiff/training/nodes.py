"""The nodes of one SLURM job that work on one run.

Every node has one task, which starts the processes (ranks) of its node. The first node's task runs the step
as on a single node and alone writes results; what its ranks are to do it leaves in a folder of the store,
where the tasks of the other nodes find it (`lend_ranks` in `training/launch.py`).
"""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from crossdiff.io.tables import read_json, write_json
from crossdiff.settings import Runtime

MEET_SECONDS = 300.0
"""How long the first node waits for the others."""
TELL_SECONDS = 20.0
"""How long it waits, when its own ranks fail, for another node to say what is wrong there."""


@dataclass(frozen=True)
class Call:
    """What all ranks do: `function(rank, *arguments, told)`, and where they find the first of them."""

    function: Callable[..., None]
    arguments: tuple[Any, ...]
    n_ranks: int
    address: str
    port: int


@dataclass(frozen=True)
class Nodes:
    """How many nodes there are, which one this is, and the folder (of this start of the job) they meet in."""

    n_nodes: int = 1
    own: int = 0
    folder: Path | None = None

    def ranks_here(self, n_ranks: int) -> int:
        """How many of the ranks this node has; ValueError where they do not divide."""
        if n_ranks % self.n_nodes:
            raise ValueError(
                f"{n_ranks} devices do not divide into {self.n_nodes} nodes; give a multiple of that"
            )
        return n_ranks // self.n_nodes

    def _path(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / name

    def sign_in(self) -> None:
        """Write the mark that this node's task has begun and sees the store."""
        self._path("").mkdir(mode=0o700, parents=True, exist_ok=True)
        write_json(os.uname().nodename, self._path(f"here_{self.own}.json"))

    def wait_for_all(self, *, seconds: float = MEET_SECONDS) -> None:
        """ValueError that names the nodes that have not signed in within `seconds`."""
        end = time.monotonic() + seconds
        left = set(range(self.n_nodes))
        while left := {node for node in left if not self._path(f"here_{node}.json").is_file()}:
            self.refuse_failed()
            if time.monotonic() > end:
                names = ", ".join(f"{node + 1} of {self.n_nodes}" for node in sorted(left))
                raise ValueError(
                    f"node {names} of this job did not report in {self.folder} within {seconds:g} s: it does "
                    "not see the store, or could not start; put the store on a file system that all nodes "
                    f"share, and look at its log, which ends in _{min(left)}_log.out, beside this job's"
                )
            time.sleep(0.2)

    def address(self) -> str:
        """Where the ranks of all nodes find the first one: the first node, or $MASTER_ADDR."""
        if self.n_nodes == 1:
            return "127.0.0.1"
        from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

        first = SLURMEnvironment.resolve_root_node_address(os.environ["SLURM_JOB_NODELIST"])
        return os.environ.get("MASTER_ADDR", first)

    def give(self, call: Call) -> None:
        """Write the next call for the other nodes to read."""
        number = len(list(self._path("").glob("call_*.pickle")))
        aside = self._path(f"call_{number}.part")
        aside.write_bytes(pickle.dumps(call))
        aside.rename(self._path(f"call_{number}.pickle"))

    def take(self, number: int) -> Call | None:
        """Wait for that call; None once the first node has ended."""
        path = self._path(f"call_{number}.pickle")
        while not path.is_file():
            if self.is_over():
                return None
            time.sleep(0.2)
        return pickle.loads(path.read_bytes())

    def end(self) -> None:
        """Mark that the first node has ended, with or without an error."""
        write_json(True, self._path("over.json"))

    def is_over(self) -> bool:
        """Whether the first node has ended."""
        return self._path("over.json").is_file()

    def tell_failed(self, error: BaseException) -> None:
        """Write this node's error for the first node to read."""
        text = str(error)
        if not isinstance(error, ValueError | MemoryError):
            text = f"{type(error).__name__}: {(text.strip().splitlines() or [''])[-1]}"
        told = {
            "kind": "memory" if isinstance(error, MemoryError) else "refused",
            "text": f"node {self.own + 1} of {self.n_nodes} ({os.uname().nodename}): {text}",
        }
        write_json(told, self._path(f"failed_{self.own}.json"))

    def has_failed(self) -> bool:
        """Whether another node has reported an error."""
        return self.n_nodes > 1 and any(self._path("").glob("failed_*.json"))

    def refuse_failed(self, *, seconds: float = 0.0) -> None:
        """Raise the error that another node has reported, waiting up to `seconds` for it."""
        if self.n_nodes == 1:
            return
        end = time.monotonic() + seconds
        while True:
            for path in sorted(self._path("").glob("failed_*.json")):
                told = read_json(path)
                raise MemoryError(told["text"]) if told["kind"] == "memory" else ValueError(told["text"])
            if time.monotonic() > end:
                return
            time.sleep(0.2)


ALONE = Nodes()
_nodes: ContextVar[Nodes] = ContextVar("nodes", default=ALONE)


def nodes_here() -> Nodes:
    """The nodes that this process works with; a single one outside a job of several."""
    return _nodes.get()


def join_nodes(nodes: Nodes) -> None:
    """Sets the nodes that this process (a rank) works with until it ends."""
    _nodes.set(nodes)


@contextmanager
def leading(nodes: Nodes) -> Iterator[None]:
    """In the first node's task: wait for the other nodes, and release them at the end."""
    token = _nodes.set(nodes)
    try:
        nodes.wait_for_all()
        yield
    finally:
        _nodes.reset(token)
        nodes.end()


def nodes_of_job(n_nodes: int, jobs: Path) -> Nodes:
    """The nodes of the SLURM job that this process is a task of; they meet in the job's folder in `jobs`."""
    started = os.environ.get("SLURM_RESTART_COUNT", "0")
    folder = jobs / os.environ["SLURM_JOB_ID"] / f"nodes_{started}"
    return Nodes(n_nodes, int(os.environ["SLURM_NODEID"]), folder)


def device_of(device: str, rank: int) -> str:
    """The device of one of several ranks of a node."""
    return f"{device}:{rank}" if device == "cuda" else device


def device_beside_ranks(runtime: Runtime) -> str:
    """The device of a process that starts ranks on the step's devices: the CPU, to leave them all memory."""
    return runtime.device if runtime.n_devices == 1 else "cpu"


def check_gpus(device: str, n_devices: int, *, setting: str) -> None:
    """ValueError where a node has fewer GPUs than its share of `setting`, or `device` is one of them."""
    n_here = nodes_here().ranks_here(n_devices)
    if ":" in device and n_devices > 1:
        raise ValueError(f"{setting}={n_devices} and device={device}, which names one; give device=cuda")
    if device.startswith("cuda") and n_here > torch.cuda.device_count():
        each = "" if n_here == n_devices else f", {n_here} per node"
        raise ValueError(
            f"{setting}={n_devices}{each}, this machine has {torch.cuda.device_count()} GPUs; choose fewer "
            "devices"
        )
