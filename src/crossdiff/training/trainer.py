"""One training run: what it is, where it works, and the Lightning trainer that does its steps.

The trainer is quiet, resumes exactly and loses nothing when a signal stops it.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, NoReturn

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger

from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.shard import Shard, sum_over_shards
from crossdiff.core.sparsity import Sparsity
from crossdiff.training.callbacks import Progress, Resume, Validation
from crossdiff.training.evaluation import HeldOut, HeldOutSample, evaluate, model_names
from crossdiff.training.metrics import Metrics
from crossdiff.training.module import CrosscoderModule
from crossdiff.training.resume import check_checkpoint
from crossdiff.training.settings import TrainingSettings
from crossdiff.training.shard_resume import SHARDS, check_sharded, checkpoints_of, say_converted
from crossdiff.training.strategy import environment, placed, quiet_lightning


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps metrics.csv and, until it ends, what it needs to continue."""

    folder: Path

    @property
    def metrics(self) -> Path:
        """One row per logged step."""
        return self.folder / "metrics.csv"

    @property
    def checkpoint(self) -> Path:
        """State at the last saved optimizer step."""
        return self.folder / ".resume" / "last.ckpt"

    @property
    def shards(self) -> Path:
        """The checkpoint of a run whose latents are dealt to several ranks."""
        return self.folder / ".resume" / SHARDS


@dataclass(frozen=True)
class TrainingRun:
    """Settings of one run, its device, and which of its `training.n_ranks()` ranks this process is."""

    dictionary: DictionarySettings
    sparsity: Sparsity
    training: TrainingSettings
    seed: int
    device: str = "cpu"
    rank: int = 0
    progress: bool = True
    loggers: tuple[Logger, ...] = ()

    @property
    def leads(self) -> bool:
        """Whether this process reports and writes."""
        return self.rank == 0

    @property
    def measures(self) -> bool:
        """Whether this process takes part in validations and final figures: one per block of latents does."""
        return self.rank < self.training.shards

    @property
    def shard(self) -> Shard | None:
        """The block of latents that this process holds; None where it holds all."""
        if self.training.shards == 1:
            return None
        return Shard(self.rank % self.training.shards, self.training.shards, self.dictionary.n_latents)

    def identity(self) -> dict[str, Any]:
        """Settings that a checkpoint must have been written with."""
        return {
            "dictionary": self.dictionary.identity(),
            "sparsity": self.sparsity.identity(),
            "training": self.training.identity(),
            "seed": self.seed,
        }


def train(run: TrainingRun, module: CrosscoderModule, folder: RunFolder) -> None:
    """Do all optimizer steps that are left, or end the process as a stop signal asks."""
    settings = run.training
    path = folder.shards if run.shard else folder.checkpoint
    resume = Resume(path, every=settings.checkpoint_every, minutes=settings.checkpoint_minutes)
    metrics = _metrics(run, module, folder) if run.measures else None
    shown = run.progress and run.leads
    reporting = [metrics, Progress(n_steps=settings.total_steps(), enabled=shown)] if metrics else []
    resumed = saved_state(run, folder)
    with quiet_lightning():
        trainer = pl.Trainer(
            **placed(run.device, settings.n_ranks(), sharded=run.shard is not None),
            plugins=[environment(settings.n_ranks()), checkpoints_of(module.crosscoder)],
            max_steps=settings.total_steps(),
            max_epochs=-1,
            logger=list(run.loggers) if run.leads and run.loggers else False,
            callbacks=[*reporting, resume, Validation(resume, metrics)],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        with resume.guarding_signals():
            trainer.fit(module, ckpt_path=resumed, weights_only=True)
    if resume.interrupted is not None:
        if run.leads:
            say_stopped(resume.interrupted, trainer.global_step)
        end_by(resume.interrupted)
    if metrics is not None and metrics.due:  # of a last step that was done before the run was stopped
        metrics.complete(trainer, module.to(run.device))


def saved_state(run: TrainingRun, folder: RunFolder) -> Path | None:
    """The checkpoint that this run continues from; None at its start. ValueError if it cannot be used."""
    identity, n_devices = run.identity(), run.training.devices
    if check_checkpoint(folder.checkpoint, identity, n_devices=n_devices):
        if run.shard is not None:
            raise ValueError(
                f"{folder.checkpoint} holds all latents in one file; go on with training.shards=1, or "
                f"remove it to train from the start: rm {folder.checkpoint}"
            )
        return folder.checkpoint
    if check_sharded(folder.shards, identity, n_devices=n_devices):
        if run.leads:
            say_converted(folder.shards, run.training.shards)
        return folder.shards
    return None


def say_stopped(number: signal.Signals, step: int) -> None:
    """Tell the user where the run stands and how to go on."""
    message = (
        f"training stopped by {number.name}; saved at step {step}: run the same command again to continue"
    )
    print(message, file=sys.stderr, flush=True)


def end_by(number: signal.Signals) -> NoReturn:
    """End this process as the signal asks: by the handler that was there before, else by exit code."""
    handler = signal.getsignal(number)
    if callable(handler):
        handler(number, None)
    raise SystemExit(128 + number)


def _metrics(run: TrainingRun, module: CrosscoderModule, folder: RunFolder) -> Metrics:
    """metrics.csv with validations on a sample of the held-out rows."""
    settings = run.training
    sample = HeldOutSample(
        module.source, n_tokens=settings.validate_tokens, batch_size=settings.batch_size, seed=run.seed
    )

    def validate(stopping: Callable[[], bool]) -> HeldOut | None:
        stopping = stopping_together(stopping, module)
        batches = takewhile(lambda _: not stopping(), sample.batches(module.device))
        k = module.stepper.k_at(module.global_step - 1)
        threshold = 0.0 if k is None else module.running_threshold.value()
        measured = evaluate(module.crosscoder, batches, threshold=threshold, k=k)
        return None if stopping() else measured

    delta = module.crosscoder.delta_ratio is not None
    names = model_names(module.crosscoder)
    return Metrics(folder.metrics, validate=validate, names=names, delta=delta, writes=run.leads)


def stopping_together(stopping: Callable[[], bool], module: CrosscoderModule) -> Callable[[], bool]:
    """Whether any rank that shares the dictionary has to stop: ranks that validate together stop together."""

    def together() -> bool:
        return bool(sum_over_shards(module.crosscoder, [int(stopping())])[0])

    return together
