"""What happens between optimizer steps: progress, metrics.csv, checkpoints, signals."""

from __future__ import annotations

import csv
import math
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from crossdiff.core.collective import largest_over_ranks, n_ranks
from crossdiff.core.decoder_norms import KINDS
from crossdiff.io.progress import bar
from crossdiff.training.evaluation import HeldOut, kind_shares
from crossdiff.training.module import CrosscoderModule

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


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


class Metrics(pl.Callback):
    """Writes metrics.csv, one row per `log_every` steps, and hands rows to the trainer's loggers.

    A resumed run drops the rows after the step it continues from.
    """

    def __init__(self, path: Path, *, validate: Callable[[], HeldOut], names: list[str]) -> None:
        self.path, self.validate, self.names = path, validate, names
        self.columns = [
            "step", "tokens", "loss", "reconstruction", "auxiliary", "sparsity", "revival",
            *(f"fve_{name}" for name in names), "l0", "dead_share", "threshold", "k", "learning_rate",
            "gradient_norm", "tokens_per_s", *(f"val_fve_{name}" for name in names), "val_l0",
            *(f"val_fve_batch_{name}" for name in names), "val_l0_batch", "val_never_fired",
            *(f"decoder_norm_{name}" for name in names),
            *(f"share_{kind}" for kind in KINDS if kind != "dead"),
        ]  # fmt: skip

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the file with the rows that still hold."""
        rows = []
        if self.path.is_file():
            with self.path.open(newline="", encoding="utf-8") as handle:
                rows = [row for row in csv.DictReader(handle) if int(row["step"]) <= trainer.global_step]
        with self.path.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, self.columns)
            writer.writeheader()
            writer.writerows(rows)
        self.since = (time.perf_counter(), trainer.global_step)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: CrosscoderModule, *_: Any) -> None:  # pyright: ignore
        """Write a row when one is due."""
        step, settings = trainer.global_step, pl_module.training_settings
        validates = step % settings.validate_every == 0
        if not validates and step % settings.log_every and step != settings.total_steps():
            return
        now = time.perf_counter()
        rate = (step - self.since[1]) * settings.batch_size / (now - self.since[0])
        row = {
            "step": step,
            "tokens": step * settings.batch_size,
            **pl_module.figures(),
            "tokens_per_s": rate,
        }
        norms = pl_module.crosscoder.decoder.detach().norm(dim=2).mean(dim=0).tolist()
        row |= {f"decoder_norm_{name}": norm for name, norm in zip(self.names, norms, strict=True)}
        if validates:
            row |= self._held_out(self.validate()) | kind_shares(pl_module.crosscoder)
        self._write(row)
        for logger in trainer.loggers:
            logger.log_metrics({f"train/{name}": v for name, v in row.items() if v == v}, step=step)
        self.since = (time.perf_counter(), step)

    def _held_out(self, found: HeldOut) -> dict[str, float]:
        return {
            "val_l0": found.l0,
            "val_l0_batch": found.l0_batch,
            "val_never_fired": found.never_fired,
            **{f"val_fve_{name}": v for name, v in zip(self.names, found.fve, strict=True)},
            **{f"val_fve_batch_{name}": v for name, v in zip(self.names, found.fve_batch, strict=True)},
        }

    def _write(self, row: dict[str, Any]) -> None:
        shown = {name: _shown(value) for name, value in row.items()}
        with self.path.open("a", newline="", encoding="utf-8") as handle:
            csv.DictWriter(handle, self.columns).writerow(shown)


def _shown(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return "" if math.isnan(value) else f"{value:.7g}"


class Resume(pl.Callback):
    """Checkpoints for exact resume: written aside and renamed, only at optimizer-step boundaries.

    A stop signal (TERM, INT, and USR2 that submitit sends before a time limit) is remembered, the step
    finished, the state saved and the fit ended; `interrupted` then holds the signal. Inside a SLURM job the
    process goes on after TERM and a save: SLURM kills and requeues it (an exit would count as the end).
    """

    def __init__(self, path: Path, *, every: int) -> None:
        self.path, self.every = path, every
        self.pending: signal.Signals | None = None
        self.interrupted: signal.Signals | None = None
        self.guarded: tuple[signal.Signals, ...] = ()
        self.rng: dict[str, Any] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore random states; from here on signals are ours."""
        if self.rng is not None:
            restore_random_states(self.rng)
        for number in self.guarded:
            signal.signal(number, self._remember)

    @contextmanager
    def guarding_signals(self) -> Iterator[None]:
        """Around `Trainer.fit`, which sets handlers of its own: afterwards those of before are back."""
        if threading.current_thread() is not threading.main_thread():
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
        """Save when it is time or when a signal came."""
        number = self._agreed(pl_module.device)
        if number is None and (trainer.global_step % self.every or trainer.global_step == trainer.max_steps):
            return
        self.save(trainer)
        if number is not None and not (number == signal.SIGTERM and "SLURM_JOB_ID" in os.environ):
            self.interrupted = number
            trainer.should_stop = True

    def _agreed(self, device: torch.device) -> signal.Signals | None:
        """A signal that any rank got; all ranks stop at the same step."""
        own = torch.tensor(self.pending or 0, device=device)
        self.pending = None
        agreed = int(largest_over_ranks(own)) if n_ranks() > 1 else int(own)
        return signal.Signals(agreed) if agreed else None

    def save(self, trainer: pl.Trainer) -> None:
        """Write the checkpoint aside, then rename."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        aside = self.path.with_suffix(".part")
        trainer.save_checkpoint(aside)
        if trainer.is_global_zero:
            os.replace(aside, self.path)

    def state_dict(self) -> dict[str, Any]:
        """Random states, which Lightning does not save."""
        return {"random": random_states()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep them until training starts."""
        self.rng = state_dict["random"]


def random_states() -> dict[str, Any]:
    """States of torch's, numpy's and Python's global generators, as plain values and tensors."""
    legacy = np.random.get_state(legacy=True)  # noqa: NPY002
    assert isinstance(legacy, tuple)
    name, keys, position, has_gauss, gauss = legacy
    version, internal, gauss_next = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [
            str(name),
            torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            int(position),
            int(has_gauss),
            float(gauss),
        ],
        "python": [version, list(internal), gauss_next],
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """The opposite of `random_states`."""
    torch.set_rng_state(states["torch"].cpu())
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])
    name, keys, position, has_gauss, gauss = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    version, internal, gauss_next = states["python"]
    random.setstate((version, tuple(internal), gauss_next))
