"""The Lightning shell around a training step of core."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch.utils.data import DataLoader

from crossdiff.core.collective import own_part
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.sparsity import Sparsity
from crossdiff.core.threshold import RunningThreshold
from crossdiff.data.paired_batch import PairedBatch
from crossdiff.training.optimise import LastStep, Stepper, check_step
from crossdiff.training.optimizers import clip_, learning_rate
from crossdiff.training.settings import TrainingSettings
from crossdiff.training.source import ActivationSource, AddressedBatches, check_finite


class CrosscoderModule(pl.LightningModule):
    """Fetches the addressed batch, lets `Stepper` do the step, keeps what a resumed run needs."""

    tokens_since_fired: torch.Tensor

    def __init__(
        self,
        crosscoder: Crosscoder,
        source: ActivationSource,
        *,
        sparsity: Sparsity,
        training: TrainingSettings,
        seed: int,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.crosscoder, self.source = crosscoder, source
        self.sparsity, self.training_settings, self.seed = sparsity, training, seed
        self.register_buffer("tokens_since_fired", torch.zeros(crosscoder.n_latents, dtype=torch.int64))
        self.running_threshold = RunningThreshold(decay=training.threshold_decay)
        self.stepper = Stepper(crosscoder, sparsity, training)
        self.sparse_step = self.stepper.sparse
        self.start = 0
        self.identity: dict[str, Any] = {}
        self.last: LastStep | None = None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam over all parameters; its rate is set at every step."""
        return self.stepper.optimizer()

    def train_dataloader(self) -> DataLoader:
        """Batches from the first one not yet trained on."""
        settings = self.training_settings
        batches = AddressedBatches(
            self.source, seed=self.seed, batch_size=settings.batch_size,
            start=self.start, stop=settings.total_steps(),
        )  # fmt: skip
        return DataLoader(batches, batch_size=None)

    def transfer_batch_to_device(
        self, batch: PairedBatch, device: torch.device, dataloader_idx: int
    ) -> PairedBatch:
        """Only the activations travel."""
        return batch.activations_on(device)

    def training_step(self, batch: PairedBatch, batch_idx: int) -> None:
        """One optimizer step on one batch of raw activations."""
        check_finite(batch, self.source)
        step, settings = self.global_step, self.training_settings
        rate = learning_rate(settings, step)
        dead = (self.tokens_since_fired > settings.dead_after_tokens).nonzero().squeeze(1)
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        for group in optimizer.param_groups:
            group["lr"] = rate
        x = own_part(batch.stored).float()
        result = self.stepper.gradients(x, step=step, dead=dead)
        norm = clip_(optimizer.optimizer, self.crosscoder, max_norm=settings.clip_norm)
        check_step(result, norm, step=step)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self.tokens_since_fired += settings.batch_size
        self.tokens_since_fired[result.fired] = 0
        if step >= self.stepper.threshold_start:
            self.running_threshold.add(float(result.smallest_kept))
        self.last = LastStep(step, result, x, rate, norm)

    def figures(self) -> dict[str, float]:
        """Metrics of the latest step."""
        assert self.last is not None, "no step was done yet"
        threshold = self.running_threshold.value() if self.stepper.has_k else math.nan
        return {**self.stepper.figures(self.last), "dead_share": self.dead_share(), "threshold": threshold}

    def dead_share(self) -> float:
        """Share of latents that have not fired for `dead_after_tokens` training tokens."""
        silent = self.tokens_since_fired > self.training_settings.dead_after_tokens
        return float(silent.double().mean())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add to what Lightning saves: the running threshold, and whose state this is."""
        checkpoint["identity"] = self.identity
        checkpoint["n_devices"] = self.trainer.world_size
        checkpoint["running_threshold"] = self.running_threshold.state()

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Restore it, and the number of the next batch."""
        self.running_threshold.restore(checkpoint["running_threshold"])
        self.start = int(checkpoint["global_step"])
