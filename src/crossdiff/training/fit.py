"""A whole training run: start or continue, fit, set the threshold, measure."""

from __future__ import annotations

import logging
import math
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytorch_lightning as pl
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.loggers import Logger

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.sparsity import BatchTopK, Sparsity, TopK
from crossdiff.core.threshold import estimate_threshold
from crossdiff.training.callbacks import Metrics, Progress, Resume
from crossdiff.training.evaluation import HeldOut, evaluate, held_out_batches
from crossdiff.training.initialise import initial_crosscoder
from crossdiff.training.module import CrosscoderModule
from crossdiff.training.optimise import model_names
from crossdiff.training.resume import check_checkpoint
from crossdiff.training.settings import TrainingSettings
from crossdiff.training.source import ActivationSource, check_enough


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


@dataclass(frozen=True)
class TrainingRun:
    """Settings of one run and where it works."""

    dictionary: DictionarySettings
    sparsity: Sparsity
    training: TrainingSettings
    seed: int
    device: str = "cpu"
    progress: bool = True
    loggers: tuple[Logger, ...] = ()

    def identity(self) -> dict[str, Any]:
        """Settings that a checkpoint must have been written with."""
        return {
            "dictionary": self.dictionary.identity(),
            "sparsity": self.sparsity.identity(),
            "training": self.training.identity(),
            "seed": self.seed,
        }


def fit(run: TrainingRun, source: ActivationSource, folder: RunFolder) -> tuple[Crosscoder, dict[str, Any]]:
    """Train, or continue a run that was stopped, and return the crosscoder with its figures."""
    settings = run.training
    folder.folder.mkdir(parents=True, exist_ok=True)
    check_enough(source, batch_size=settings.batch_size)
    crosscoder = initial_crosscoder(
        source, run.dictionary, sparsity=run.sparsity, training=settings, seed=run.seed
    )
    module = CrosscoderModule(crosscoder, source, sparsity=run.sparsity, training=settings, seed=run.seed)
    started = time.perf_counter()
    _train(run, module, folder)
    seconds = time.perf_counter() - started
    module.to(run.device)
    set_threshold(module)
    figures = final_figures(module)
    figures["train_seconds"] = seconds
    figures["tokens_per_s"] = (settings.total_steps() - module.start) * settings.batch_size / seconds
    return crosscoder.cpu(), figures


def _train(run: TrainingRun, module: CrosscoderModule, folder: RunFolder) -> None:
    settings, source = run.training, module.source
    resume = Resume(folder.checkpoint, every=settings.checkpoint_every)
    resumed = check_checkpoint(folder.checkpoint, run.identity())
    module.identity = run.identity()

    def validate() -> HeldOut:
        batches = held_out_batches(
            source, batch_size=settings.batch_size, n_tokens=settings.validate_tokens, device=module.device
        )
        threshold = module.running_threshold.value() if module.stepper.has_k else 0.0
        return evaluate(module.crosscoder, batches, threshold=threshold, k=current_k(module))

    metrics = Metrics(folder.metrics, validate=validate, names=model_names(module.crosscoder))
    progress = Progress(n_steps=settings.total_steps(), enabled=run.progress)
    with quiet_lightning():
        trainer = pl.Trainer(
            accelerator="gpu" if run.device.startswith("cuda") else "cpu", devices=1,
            max_steps=settings.total_steps(), max_epochs=-1, logger=list(run.loggers) or False,
            callbacks=[metrics, resume, progress], plugins=[LightningEnvironment()],
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            use_distributed_sampler=False,
        )  # fmt: skip
        with resume.guarding_signals():
            trainer.fit(module, ckpt_path=folder.checkpoint if resumed else None, weights_only=True)
    if resume.interrupted is not None:
        stop(resume.interrupted, trainer.global_step)


def stop(number: signal.Signals, step: int) -> NoReturn:
    """End the process as the signal asks, now that the state is saved."""
    message = (
        f"training stopped by {number.name}; saved at step {step}: run the same command again to continue"
    )
    print(message, file=sys.stderr, flush=True)
    handler = signal.getsignal(number)
    if callable(handler):
        handler(number, None)
    raise SystemExit(128 + number)


def current_k(module: CrosscoderModule) -> int | None:
    """k of the step just done; None for methods without k."""
    if not isinstance(module.sparsity, BatchTopK | TopK):
        return None
    return module.sparsity.k_at(max(0, module.global_step - 1), n_latents=module.crosscoder.n_latents)


def set_threshold(module: CrosscoderModule) -> None:
    """Estimate the inference threshold on fresh training batches; 0 for methods without k."""
    sparsity, settings = module.sparsity, module.training_settings
    if not isinstance(sparsity, BatchTopK | TopK):
        module.crosscoder.threshold.fill_(0.0)
        return
    numbers = range(settings.total_steps(), settings.total_steps() + settings.threshold_batches)
    device = module.crosscoder.encoder.device
    batches = (
        module.source.training_batch(number, seed=module.seed, batch_size=settings.batch_size).x.to(device)
        for number in numbers
    )
    module.crosscoder.threshold.fill_(estimate_threshold(module.crosscoder, batches, k=sparsity.k))


def final_figures(module: CrosscoderModule) -> dict[str, Any]:
    """Figures over all held-out tokens with the final threshold (method.md section 2)."""
    crosscoder, settings = module.crosscoder, module.training_settings
    k = module.sparsity.k if isinstance(module.sparsity, BatchTopK | TopK) else None
    threshold = float(crosscoder.threshold)
    batches = held_out_batches(
        module.source, batch_size=settings.batch_size, n_tokens=None, device=crosscoder.encoder.device
    )
    found = evaluate(crosscoder, batches, threshold=threshold, k=k)
    names = model_names(crosscoder)
    figures = {
        **{f"fve_{name}": value for name, value in zip(names, found.fve, strict=True)},
        **{f"fve_batch_{name}": value for name, value in zip(names, found.fve_batch, strict=True)},
        "l0": found.l0,
        "l0_threshold": found.l0,
        "l0_batch": found.l0_batch,
        "dead_share": module.dead_share(),
        "never_fired_held_out": found.never_fired,
        "n_held_out_tokens": found.n_tokens,
        "k": k,
        "n_latents": crosscoder.n_latents,
        "threshold": threshold,
        "n_steps": settings.total_steps(),
        "n_tokens": settings.total_steps() * settings.batch_size,
    }
    return {name: None if isinstance(v, float) and math.isnan(v) else v for name, v in figures.items()}


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence Lightning's announcements and hints; its errors still travel."""
    loggers = [
        logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*|.*num_workers.*|.*GPU available.*")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
