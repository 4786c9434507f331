"""The Lightning shells around a training step and around a pass of latent scaling."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import distributed
from torch.utils.data import DataLoader

from crossdiff.core.collective import arrange, own_part
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.delta import set_ratio_
from crossdiff.core.dense import StepResult
from crossdiff.core.difference_effect import EffectSums
from crossdiff.core.latent_scaling import ScalingSums, empty_sums
from crossdiff.core.shard import mean_over_shards
from crossdiff.core.sparsity import Sparsity
from crossdiff.core.streaming import PassSums
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


class LatentScalingModule(pl.LightningModule):
    """Accumulates `ScalingSums` over `trainer.predict(module, batches, return_predictions=False)`.

    Of a difference dictionary (diff_sae) these are `EffectSums`.

    Every rank reads its own part of the corpus (neighbouring documents, so that document counts stay exact);
    when the pass ends all ranks hold the same sums over everything, in `sums`.
    """

    def __init__(self, crosscoder: Crosscoder) -> None:
        super().__init__()
        self.crosscoder = crosscoder
        self.sums: ScalingSums | EffectSums | None = None

    def on_predict_epoch_start(self) -> None:
        """Start a new pass with empty sums."""
        self.sums = self._empty(documents=True)

    def transfer_batch_to_device(
        self, batch: PairedBatch, device: torch.device, dataloader_idx: int
    ) -> PairedBatch:
        """Move activations, documents and template marks to the device."""
        return batch.to(device)

    @torch.no_grad()
    def predict_step(self, batch: PairedBatch, batch_idx: int) -> None:
        """Add one batch of raw activations."""
        assert self.sums is not None
        x = batch.x.to(self.crosscoder.decoder.dtype)
        if batch.document is None and not self.sums.n_tokens:
            self.sums = self._empty(documents=False)
        self.sums.add(self.crosscoder, x, document=batch.document, template=batch.template)

    def on_predict_epoch_end(self) -> None:
        """Add the sums of all ranks."""
        assert self.sums is not None
        add_over_ranks_(self.sums)

    def _empty(self, *, documents: bool) -> ScalingSums | EffectSums:
        empty = EffectSums.empty if self.crosscoder.settings.architecture == "diff_sae" else empty_sums
        return empty(self.crosscoder, documents=documents)


def add_over_ranks_(sums: PassSums) -> None:
    """Replace the sums of this rank by those over all ranks; nothing to do in a single process."""
    if not distributed.is_available() or not distributed.is_initialized():
        return
    for name in sums.ADDED:
        distributed.all_reduce(getattr(sums, name))
    distributed.all_reduce(sums.maximum, op=distributed.ReduceOp.MAX)
    of_ranks: list = [None] * distributed.get_world_size()
    distributed.all_gather_object(of_ranks, (sums.n_tokens, sums.documents, sums.fit))
    this_rank = distributed.get_rank()
    for n_tokens, documents, fit in of_ranks[:this_rank] + of_ranks[this_rank + 1 :]:
        sums.n_tokens += n_tokens
        sums.documents.merge(documents)
        if sums.fit is not None and fit is not None:
            sums.fit.merge(fit)
        sums.fit = sums.fit or fit
