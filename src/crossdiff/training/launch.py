"""Training on several devices: one process per device, started here (and on the other nodes of a SLURM job).

Every rank reads the addressed batch and works on its own contiguous part; the batch top-k, the dead latents
and the gradients are those of the global batch, so that the weights stay equal on all ranks. With
`training.shards` a rank holds one block of the latents (`core.shard`) and works on the whole batch.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch.multiprocessing.spawn import ProcessExitedException

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.shard import CrosscoderShard
from crossdiff.io.tables import read_json, write_json
from crossdiff.training.callbacks import STOP_SIGNALS
from crossdiff.training.nodes import TELL_SECONDS, Nodes, check_gpus
from crossdiff.training.ranks import begin_ranks, finish_ranks, leave, start_call
from crossdiff.training.run import fit
from crossdiff.training.settings import check_shards
from crossdiff.training.shard_resume import save_block
from crossdiff.training.source import ActivationSource
from crossdiff.training.told import FAILED
from crossdiff.training.trainer import RunFolder, TrainingRun, end_by


def fit_on_devices(
    run: TrainingRun, open_source: Callable[[], ActivationSource], folder: RunFolder
) -> tuple[Crosscoder, dict[str, Any]]:
    """`fit` in one process per device; with one device in this process. Needs picklable arguments."""
    check_devices(run)
    if run.training.n_ranks() == 1:
        return fit(run, open_source(), folder)
    result = folder.checkpoint.parent / "result"
    shutil.rmtree(result, ignore_errors=True)
    result.mkdir(parents=True)
    started = begin_ranks(_rank, (run, open_source, folder), n_ranks=run.training.n_ranks())
    with forwarding(started.processes) as received:
        try:
            finish_ranks(started)
        except (ProcessExitedException, ValueError):
            refuse_told(result)
            if not received:
                raise
    if not (result / "figures.json").is_file():  # which is written last
        if received:
            end_by(received[0])
        raise ValueError(
            "training was stopped on another of its nodes, by a signal or the loss of a task; its last save "
            "is kept: go on with action=retry"
        )
    return Crosscoder.load(result), read_json(result / "figures.json")


def refuse_told(result: Path) -> None:
    """Raise the error that a rank wrote into the folder of the result."""
    for told in sorted(result.glob("error_*.json")):
        raise ValueError(read_json(told)) from None


def check_devices(run: TrainingRun) -> None:
    """ValueError when machine, batch or dictionary have less than the number of devices asked for."""
    check_shards(run.dictionary, run.sparsity, run.training)
    setting = "training.devices" if run.training.shards == 1 else "training.devices x training.shards"
    check_gpus(run.device, run.training.n_ranks(), setting=setting)
    parts = run.training.devices * run.training.accumulate
    if run.training.batch_size % parts:
        raise ValueError(
            f"training.batch_size={run.training.batch_size} does not divide into "
            f"devices={run.training.devices} x accumulate={run.training.accumulate} parts; "
            f"choose a multiple of {parts}"
        )


def _rank(
    rank: int, run: TrainingRun, open_source: Callable[[], ActivationSource], folder: RunFolder, told: Any
) -> None:
    """One process: trains; rank 0 also measures and leaves the result."""
    result = folder.checkpoint.parent / "result"
    if "SLURM_JOB_ID" in os.environ:  # there TERM only announces a kill: outside the fit nobody saves
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        crosscoder, figures = fit(replace(run, rank=rank), open_source(), folder)
    except (SystemExit, KeyboardInterrupt):
        leave()
    except ValueError as error:
        write_json(str(error), result / f"error_{rank}.json")  # ranks that fail at once share no file
        leave(FAILED)
    if isinstance(crosscoder, CrosscoderShard) and figures:
        save_block(crosscoder, result)
    elif rank == 0:
        crosscoder.save(result)
    if rank == 0:
        write_json(figures, result / "figures.json")
    leave()


@contextmanager
def forwarding(processes: list[Any]) -> Iterator[list[signal.Signals]]:
    """Pass stop signals on to all ranks, which save and end; yields those received."""
    received: list[signal.Signals] = []

    def forward(number: int, frame: Any) -> None:
        received.append(signal.Signals(number))
        for process in processes:
            if process.is_alive():
                os.kill(process.pid, number)

    before = {number: signal.signal(number, forward) for number in STOP_SIGNALS}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Over(Exception):
    """Raised when the first node has ended."""


def lend_ranks(nodes: Nodes) -> None:
    """Start this node's ranks of every call that the first node gives, until it has ended.

    An error here is raised, and also sent to the first node, whose log and message the user sees.
    """

    def stop_when_over() -> None:
        if nodes.is_over():
            raise _Over

    number = 0
    while (call := nodes.take(number)) is not None:
        number += 1
        started = start_call(call, nodes)
        try:
            with forwarding(started.processes):
                finish_ranks(started, watch=stop_when_over)
        except _Over:
            return


def tell_first_node(nodes: Nodes, error: BaseException) -> None:
    """Send the error to the first node and wait until it can have acted on it."""
    nodes.tell_failed(error)
    end = time.monotonic() + 2 * TELL_SECONDS
    while time.monotonic() < end and not nodes.is_over():
        time.sleep(0.2)
