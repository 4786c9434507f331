"""The Lightning shell around a training step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch.utils.data import DataLoader

from crossdiff.core.collective import arrange, own_part
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.delta import set_ratio_
from crossdiff.core.dense import StepResult
from crossdiff.core.shard import mean_over_shards
from crossdiff.core.sparsity import Sparsity
from crossdiff.core.threshold import RunningThreshold
from crossdiff.data.paired_batch import PairedBatch
from crossdiff.training.optimise import LastStep, Stepper, check_step, clip_
from crossdiff.training.resume import refuse_disagreement
from crossdiff.training.settings import TrainingSettings
from crossdiff.training.source import ActivationSource, AddressedBatches, check_finite
from crossdiff.training.strategy import RANKS_WAIT


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
        self.running_delta = RunningThreshold(decay=training.threshold_decay)
        self.stepper = Stepper(crosscoder, sparsity, training)
        self.sparse_step = self.stepper.sparse
        self.start = 0
        self.identity: dict[str, Any] = {}
        self.last: LastStep | None = None

    def setup(self, stage: str) -> None:
        """Form the groups of ranks that share tokens or latents; check that all ranks have the same run."""
        refuse_disagreement(self.identity)
        if self.training_settings.shards > 1:
            arrange(self.training_settings.shards, timeout=RANKS_WAIT)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam over all parameters; its rate is set at every step."""
        return self.stepper.optimizer()

    def train_dataloader(self) -> DataLoader:
        """Batches from the first one not yet trained on."""
        settings = self.training_settings
        batches = AddressedBatches(
            self.source, seed=settings.order(self.seed), batch_size=settings.batch_size,
            start=self.start, stop=settings.total_steps(),
        )  # fmt: skip
        return DataLoader(batches, batch_size=None)

    def transfer_batch_to_device(
        self, batch: PairedBatch, device: torch.device, dataloader_idx: int
    ) -> PairedBatch:
        """Move only the activations to the device."""
        return batch.activations_on(device)

    def training_step(self, batch: PairedBatch, batch_idx: int) -> None:
        """One optimizer step on one batch of raw activations."""
        check_finite(batch, self.source)
        step, settings = self.global_step, self.training_settings
        rate = self.stepper.learning_rates[step]
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
        self.crosscoder.constrain_()
        optimizer.zero_grad(set_to_none=True)
        self.tokens_since_fired += settings.batch_size
        self.tokens_since_fired[result.fired] = 0
        if step >= self.stepper.threshold_start:
            self._follow_thresholds(result)
        self.last = LastStep(step, result, x, rate, norm)

    def _follow_thresholds(self, result: StepResult) -> None:
        """Update the running thresholds; a Delta-Crosscoder has two and uses their ratio."""
        self.running_threshold.add(float(result.smallest_kept))
        if result.smallest_delta is not None:
            self.running_delta.add(float(result.smallest_delta))
            set_ratio_(self.crosscoder, self.running_delta.value(), self.running_threshold.value())

    def figures(self) -> dict[str, float]:
        """Metrics of the latest step."""
        assert self.last is not None, "no step was done yet"
        threshold = self.running_threshold.value() if self.stepper.k is not None else math.nan
        return {**self.stepper.figures(self.last), "dead_share": self.dead_share(), "threshold": threshold}

    def dead_share(self) -> float:
        """Share of latents that have not fired for `dead_after_tokens` training tokens."""
        silent = self.tokens_since_fired > self.training_settings.dead_after_tokens
        return mean_over_shards(self.crosscoder, [float(silent.double().mean())])[0]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add to what Lightning saves: the running threshold, and whose state this is."""
        checkpoint["identity"] = self.identity
        checkpoint["n_devices"] = self.training_settings.devices
        checkpoint["running_threshold"] = self.running_threshold.state()
        checkpoint["running_delta"] = self.running_delta.state()

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Restore the threshold and the number of the next batch."""
        self.running_threshold.restore(checkpoint["running_threshold"])
        if "running_delta" in checkpoint:  # not in a checkpoint of an older version
            self.running_delta.restore(checkpoint["running_delta"])
        self.start = int(checkpoint["global_step"])
