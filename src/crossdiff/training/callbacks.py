"""What happens between optimizer steps: progress, checkpoints, signals, validation."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from crossdiff.core.collective import largest_over_ranks, n_ranks
from crossdiff.io.progress import bar
from crossdiff.training.metrics import Metrics
from crossdiff.training.module import CrosscoderModule
from crossdiff.training.resume import random_states, restore_random_states

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
_ENDING = 100
"""More than any signal's number; added to those that end the fit."""


class Relay:
    """Forwards the stop signals, which only the main thread gets, to the fits in other threads."""

    def __init__(self) -> None:
        self.received: list[signal.Signals] = []
        self._fits: list[Resume] = []
        self._begun: set[int] = set()

    def refuse_set_up(self) -> None:
        """Raise KeyboardInterrupt if the calling thread was asked to stop before its fit began."""
        if self.stopping() and threading.get_ident() not in self._begun:
            raise KeyboardInterrupt

    def add(self, fit: Resume) -> None:
        """Register a fit that begins; KeyboardInterrupt if it was asked to stop before its first step."""
        self.refuse_set_up()
        self._fits.append(fit)
        self._begun.add(threading.get_ident())
        fit.pending = self.ending() or (self.received[-1] if self.received else None)

    def pass_on(self, number: int, frame: Any) -> None:
        """A handler of signals; one that only asks for a save does not replace one that ends the fits."""
        self.received.append(signal.Signals(number))
        for fit in self._fits:
            fit.pending = self.ending() or signal.Signals(number)

    def ending(self) -> signal.Signals | None:
        """The first signal that ends the fits."""
        return next(filter(_ends, self.received), None)

    def stopping(self) -> bool:
        """Whether a signal came that ends the fits."""
        return self.ending() is not None


_relay: ContextVar[Relay | None] = ContextVar("relay", default=None)


@contextmanager
def heeding(relay: Relay) -> Iterator[None]:
    """Makes the fits of this thread, which gets no signals itself, act on those that `relay` forwards."""
    token = _relay.set(relay)
    try:
        yield
    finally:
        _relay.reset(token)


class Progress(pl.Callback):
    """A bar with rate and time left."""

    def __init__(self, *, n_steps: int, enabled: bool) -> None:
        self.n_steps, self.enabled = n_steps, enabled

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start at the step a resumed run continues from."""
        self.bar = bar(total=self.n_steps, description="train", unit="step", enabled=self.enabled)
        self.bar.n = self.bar.initial = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: CrosscoderModule, *_: Any) -> None:  # pyright: ignore
        """Advance by one step."""
        if trainer.global_step % 20 == 0 and pl_module.last is not None:
            self.bar.set_postfix(loss=f"{pl_module.last.loss():.4g}", refresh=False)
        self.bar.update(1)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Close the bar, also after a failure."""
        if hasattr(self, "bar"):
            self.bar.close()


class Resume(pl.Callback):
    """Checkpoints for exact resume, only at boundaries of optimizer steps.

    They are due at every `every`-th step, except within `minutes` of the last one.

    A stop signal (TERM, INT, and USR2 that submitit sends before a time limit) is remembered, the step
    finished, the state saved and the fit ended; `interrupted` then holds the signal. Inside a SLURM job the
    process goes on after TERM and a save: SLURM kills and requeues it (an exit would count as the end).
    """

    def __init__(self, path: Path, *, every: int, minutes: float = 0) -> None:
        self.path, self.every, self.minutes = path, every, minutes
        self.saved_at = -math.inf
        self.pending: signal.Signals | None = None
        self.interrupted: signal.Signals | None = None
        self.guarded: tuple[signal.Signals, ...] = ()
        self.rng: dict[str, Any] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore random states and install the signal handlers."""
        self.saved_at = time.monotonic()
        if self.rng is not None:
            restore_random_states(self.rng)
        for number in self.guarded:
            signal.signal(number, self._remember)

    @contextmanager
    def guarding_signals(self) -> Iterator[None]:
        """Restore the earlier signal handlers after `Trainer.fit`, which installs its own."""
        if threading.current_thread() is not threading.main_thread():
            if (relay := _relay.get()) is not None:
                relay.add(self)
            yield
            return
        self.process, self.guarded = os.getpid(), STOP_SIGNALS
        before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _remember(self, number: int, frame: Any) -> None:
        if os.getpid() == self.process:  # forked workers inherit the handler
            self.pending = signal.Signals(number)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Save when a checkpoint is due or a signal has come."""
        step, waited = trainer.global_step, time.monotonic() - self.saved_at
        due = step % self.every == 0 and step != trainer.max_steps and waited >= 60 * self.minutes
        self.heed(trainer, pl_module, due=due)

    def heed(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *, due: bool = False) -> None:
        """Save if any rank finds it due or got a signal, and end the fit if the signal asks for it.

        All ranks call this at the same places of the same steps.
        """
        number, due = self._agreed(due, pl_module.device)
        if number is None and not due:
            return
        trainer.save_checkpoint(self.path)
        self.saved_at = time.monotonic()
        if number is not None and _ends(number):
            self.interrupted = number
            trainer.should_stop = True

    def stopping(self) -> bool:
        """Whether this process has a signal to heed that ends the fit."""
        return self.pending is not None and _ends(self.pending)

    def _agreed(self, due: bool, device: torch.device) -> tuple[signal.Signals | None, bool]:
        """A signal of any rank, one that ends the fit before others, and whether any finds a save due."""
        number, self.pending = self.pending, None
        if n_ranks("all") == 1:
            return number, due
        code = 0 if number is None else number + _ENDING * _ends(number)
        agreed, any_due = largest_over_ranks(torch.tensor([code, int(due)], device=device), "all").tolist()
        return signal.Signals(agreed % _ENDING) if agreed else None, bool(any_due)

    def state_dict(self) -> dict[str, Any]:
        """Random states, which Lightning does not save."""
        return {"random": random_states()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the random states until training starts."""
        self.rng = state_dict["random"]


def _ends(number: signal.Signals) -> bool:
    """Whether a signal ends the fit; TERM inside a SLURM job only makes it save."""
    return not (number == signal.SIGTERM and "SLURM_JOB_ID" in os.environ)


class Validation(pl.Callback):
    """Has rows of `metrics` validated (on the leading rank), after `Resume` has acted on a signal or saved.

    A signal that comes during a validation breaks it off; it is acted on at the same step, and the checkpoint
    contains the row, so that the resumed run begins with this validation.
    """

    def __init__(self, resume: Resume, metrics: Metrics | None) -> None:
        self.resume, self.metrics = resume, metrics

    def on_train_start(self, trainer: pl.Trainer, pl_module: CrosscoderModule) -> None:  # pyright: ignore
        """Complete the row that the run was stopped in."""
        if self.metrics is not None:
            self.metrics.complete(trainer, pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: CrosscoderModule, *_: Any) -> None:  # pyright: ignore
        """Validate when a row is due."""
        if self.resume.interrupted or trainer.global_step % pl_module.training_settings.validate_every:
            return
        if self.metrics is not None:
            self.metrics.complete(trainer, pl_module, stopping=self.resume.stopping)
        self.resume.heed(trainer, pl_module)
