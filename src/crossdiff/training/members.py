"""Several trainings at a time on one device and from one reader, each as it would run alone.

Each training has a thread, and one of them works at a time: the one whose next batch comes first. So what
is read for one is at hand for the others that ask for the same, and no sum is taken in another order.
"""

from __future__ import annotations

import math
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

from jaxtyping import Float, Int
from torch import Tensor

from crossdiff.data.paired_activations import Split
from crossdiff.data.paired_batch import PairedBatch
from crossdiff.training.callbacks import STOP_SIGNALS, Relay, heeding
from crossdiff.training.source import ActivationSource
from crossdiff.training.strategy import quiet_lightning
from crossdiff.training.trainer import end_by

Made = TypeVar("Made")
"""What a training returns."""
Turn = tuple[float, float]
"""What a member waits for: (0, number of a training batch), or (1, number of a batch of a later pass)."""
BEFORE: Turn = (-1, 0)
OVER: Turn = (math.inf, 0)


def train_together(
    source: ActivationSource, trainings: Sequence[Callable[[ActivationSource], Made]]
) -> list[Made | ValueError]:
    """Call every training with its own source over the one reader of `source`; returns their results.

    A training that is refused (ValueError) leaves the others alone. A stop signal reaches all of them: each
    saves its state, and this process ends as the signal asks.
    """
    relay = Relay()
    reading = SharedReading(source, len(trainings), relay)
    made: list[Any] = [None] * len(trainings)

    def work(member: int) -> None:
        try:
            with reading.taking_part(member), heeding(relay):
                made[member] = trainings[member](MemberSource(reading, member))
        except BaseException as error:  # noqa: BLE001  raised again in the calling thread
            made[member] = error
            _tell_at_once(error, member, len(trainings))

    threads = [threading.Thread(target=work, args=(member,)) for member in range(len(trainings))]
    with quiet_lightning(), _passing_on(relay):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if any(isinstance(outcome, SystemExit | KeyboardInterrupt) for outcome in made):
        end_by(relay.ending() or relay.received[0])
    for outcome in made:
        if isinstance(outcome, BaseException) and not isinstance(outcome, ValueError):
            raise outcome
    return made


def _tell_at_once(error: BaseException, member: int, n_members: int) -> None:
    """Say on stderr why a member ended: the others may work for hours before the error is raised."""
    if isinstance(error, SystemExit | KeyboardInterrupt):
        return
    if not isinstance(error, ValueError):
        traceback.print_exception(error)
    print(
        f"training {member + 1} of the {n_members} that share a reader has failed ({type(error).__name__}: "
        f"{error}); the others go on",
        file=sys.stderr,
        flush=True,
    )


class SharedReading:
    """Hands the turn from member to member and keeps the last batch of every kind that was read."""

    def __init__(self, source: ActivationSource, n_members: int, relay: Relay) -> None:
        self.source, self.relay = source, relay
        self.stopping = relay.stopping
        self.statistics = cache(source.statistics)
        self._waiting_for: list[Turn] = [BEFORE] * n_members
        self._changed = threading.Condition()
        self._last: dict[Any, tuple[Any, PairedBatch | None]] = {}
        self._passes: dict[Any, Iterator[PairedBatch]] = {}

    @contextmanager
    def taking_part(self, member: int) -> Iterator[None]:
        """Surrounds all work of a member; when it ends, the others continue without it."""
        self.wait(member, BEFORE)
        try:
            yield
        finally:
            self._ask(member, OVER)

    def wait(self, member: int, turn: Turn) -> None:
        """Wait until no other member needs an earlier batch; members that need the same one go in order."""
        self._ask(member, turn)
        with self._changed:
            self._changed.wait_for(lambda: self._next() == member)

    def training_batch(self, number: int, *, seed: int, batch_size: int) -> PairedBatch:
        """The batch, read unless it is the last that was read in this order."""
        kind = ("train", seed, batch_size)
        if self._last.get(kind, (None, None))[0] != number:
            batch = self.source.training_batch(number, seed=seed, batch_size=batch_size)
            self._last[kind] = (number, batch)
        return self._last[kind][1]  # type: ignore[return-value]

    def batch_of_pass(self, split: Split, batch_size: int, number: int) -> PairedBatch | None:
        """Batch `number` of a pass in corpus order that all members make together; None after the last."""
        kind = (split, batch_size)
        last = self._last.get(kind, (-1, None))[0]
        if number < last or kind not in self._passes:
            self._passes[kind], last = self.source.batches(split=split, batch_size=batch_size), -1
        while last < number:
            last += 1
            self._last[kind] = (last, next(self._passes[kind], None))
        return self._last[kind][1]

    def _ask(self, member: int, turn: Turn) -> None:
        with self._changed:
            self._waiting_for[member] = turn
            self._changed.notify_all()

    def _next(self) -> int:
        return min(range(len(self._waiting_for)), key=lambda member: (self._waiting_for[member], member))


class MemberSource:
    """One member's `ActivationSource` over a shared reading."""

    def __init__(self, reading: SharedReading, member: int) -> None:
        self._reading, self._member = reading, member
        self.n_models, self.d_model = reading.source.n_models, reading.source.d_model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reading.source, name)  # what messages ask for: `token_set`, `place`

    def rows(self, split: Split = "all") -> Int[Tensor, " row"]:
        """Rows kept by the mask."""
        return self._reading.source.rows(split)

    def document_of(self, rows: Int[Tensor, " row"]) -> Int[Tensor, " row"]:
        """Index of the document that each row belongs to."""
        return self._reading.source.document_of(rows)

    def batches_of(self, rows: Int[Tensor, " row"], *, batch_size: int) -> Iterator[PairedBatch]:
        """The given rows in corpus order, read for this member alone."""
        return self._reading.source.batches_of(rows, batch_size=batch_size)

    def statistics(self) -> tuple[Float[Tensor, "model d_model"], Float[Tensor, "model d_model"]]:
        """Float64 mean and variance of the training rows, taken once for all members."""
        self._reading.relay.refuse_set_up()
        return self._reading.statistics()

    def training_batch(self, number: int, *, seed: int, batch_size: int) -> PairedBatch:
        """Wait for the turn, then the batch."""
        self._reading.relay.refuse_set_up()
        self._reading.wait(self._member, (0, number))
        self._reading.relay.refuse_set_up()
        return self._reading.training_batch(number, seed=seed, batch_size=batch_size)

    def batches(self, *, split: Split = "all", batch_size: int) -> Iterator[PairedBatch]:
        """Kept rows in corpus order, read once for the members that pass over them at the same time."""
        number = 0
        while True:
            self._reading.wait(self._member, (1, number))
            if self._reading.stopping():
                raise KeyboardInterrupt
            batch = self._reading.batch_of_pass(split, batch_size, number)
            if batch is None:
                return
            yield batch
            number += 1


@contextmanager
def _passing_on(relay: Relay) -> Iterator[None]:
    """Hand stop signals, which only the main thread gets, to the trainings that run."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, relay.pass_on) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
