"""One training run: what it is, where it works, and the Lightning trainer that does its steps.

The trainer is quiet, resumes exactly and loses nothing when a signal stops it.
"""

from __future__ import annotations

import logging
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import takewhile
from pathlib import Path
from typing import Any, NoReturn

import pytorch_lightning as pl
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from pytorch_lightning.loggers import Logger
from pytorch_lightning.strategies import DDPStrategy

from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.sparsity import Sparsity
from crossdiff.training.callbacks import Progress, Resume, Validation
from crossdiff.training.evaluation import HeldOut, HeldOutSample, evaluate
from crossdiff.training.metrics import Metrics
from crossdiff.training.module import CrosscoderModule
from crossdiff.training.nodes import nodes_here
from crossdiff.training.optimise import model_names
from crossdiff.training.resume import WholeCheckpoints, check_checkpoint
from crossdiff.training.settings import TrainingSettings


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
    """Settings of one run, its device, and which of the `training.devices` ranks this process is."""

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
        """Whether this process measures, reports and writes."""
        return self.rank == 0

    def identity(self) -> dict[str, Any]:
        """Settings that a checkpoint must have been written with."""
        return {
            "dictionary": self.dictionary.identity(),
            "sparsity": self.sparsity.identity(),
            "training": self.training.identity(),
            "seed": self.seed,
        }


class Ranks(DDPStrategy):
    """Processes of `DDPStrategy` without its wrapper: core sums the gradients itself."""

    def configure_ddp(self) -> None:
        """Leave the module as it is; a wrapper would keep a second copy of all gradients."""


def train(run: TrainingRun, module: CrosscoderModule, folder: RunFolder) -> None:
    """Do all optimizer steps that are left, or end the process as a stop signal asks."""
    settings = run.training
    resume = Resume(folder.checkpoint, every=settings.checkpoint_every, minutes=settings.checkpoint_minutes)
    metrics = _metrics(run, module, folder) if run.leads else None
    reporting = [metrics, Progress(n_steps=settings.total_steps(), enabled=run.progress)] if metrics else []
    resumed = check_checkpoint(folder.checkpoint, run.identity(), n_devices=settings.devices)
    with quiet_lightning():
        trainer = pl.Trainer(
            **placed(run.device, settings.devices),
            plugins=[environment(), WholeCheckpoints()],
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
            trainer.fit(module, ckpt_path=folder.checkpoint if resumed else None, weights_only=True)
    if resume.interrupted is not None:
        if run.leads:
            say_stopped(resume.interrupted, trainer.global_step)
        end_by(resume.interrupted)
    if metrics is not None and metrics.due:  # of a last step that was done before the run was stopped
        metrics.complete(trainer, module.to(run.device))


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


RANKS_WAIT = timedelta(days=2)
"""How long ranks wait for one another, in place of Lightning's 30 minutes: a slow disk, or a validation on
one of them, may take longer, and a rank that has died is noticed by the task that started it."""


def placed(device: str, n_devices: int) -> dict[str, Any]:
    """Lightning's accelerator, devices per node (or the index of the one GPU), nodes and strategy."""
    gpu, index = device.startswith("cuda"), device.partition(":")[2]
    nodes = nodes_here()
    ranks = Ranks(process_group_backend="nccl" if gpu else "gloo", timeout=RANKS_WAIT)
    return {
        "accelerator": "gpu" if gpu else "cpu",
        "devices": [int(index)] if index else nodes.ranks_here(n_devices) if n_devices > 1 else 1,
        "num_nodes": nodes.n_nodes if n_devices > 1 else 1,
        "strategy": "auto" if n_devices == 1 else ranks,
    }


def environment() -> ClusterEnvironment:
    """Where Lightning's ranks find one another: on one node, or on several of a SLURM job."""
    return LightningEnvironment() if nodes_here().n_nodes == 1 else SLURMEnvironment(auto_requeue=False)


def _metrics(run: TrainingRun, module: CrosscoderModule, folder: RunFolder) -> Metrics:
    """metrics.csv with validations on a sample of the held-out rows."""
    settings = run.training
    sample = HeldOutSample(
        module.source, n_tokens=settings.validate_tokens, batch_size=settings.batch_size, seed=run.seed
    )

    def validate(stopping: Callable[[], bool]) -> HeldOut | None:
        batches = takewhile(lambda _: not stopping(), sample.batches(module.device))
        k = module.stepper.k_at(module.global_step - 1)
        threshold = 0.0 if k is None else module.running_threshold.value()
        found = evaluate(module.crosscoder, batches, threshold=threshold, k=k)
        return None if stopping() else found

    delta = module.crosscoder.delta_ratio is not None
    return Metrics(folder.metrics, validate=validate, names=model_names(module.crosscoder), delta=delta)


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
