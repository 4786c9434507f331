"""The Lightning shell around latent scaling: one predict pass, sums added up over all ranks."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from torch import distributed

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.latent_scaling import ScalingSums, empty_sums
from crossdiff.data.paired_batch import PairedBatch

ADDED = ("energy", "overlap", "n_active", "template_energy")


class LatentScalingModule(pl.LightningModule):
    """Accumulates `ScalingSums` over `trainer.predict(module, batches, return_predictions=False)`.

    Every rank reads its own part of the corpus (neighbouring documents, so that document counts stay exact);
    when the pass ends all ranks hold the same sums over everything, in `sums`.
    """

    def __init__(self, crosscoder: Crosscoder) -> None:
        super().__init__()
        self.crosscoder = crosscoder
        self.sums: ScalingSums | None = None

    def on_predict_epoch_start(self) -> None:
        """A new pass starts from nothing."""
        self.sums = empty_sums(self.crosscoder, documents=True)

    def transfer_batch_to_device(
        self, batch: PairedBatch, device: torch.device, dataloader_idx: int
    ) -> PairedBatch:
        """Activations, documents and template marks travel."""
        return batch.to(device)

    @torch.no_grad()
    def predict_step(self, batch: PairedBatch, batch_idx: int) -> None:
        """Add one batch of raw activations."""
        assert self.sums is not None
        x = batch.x.to(self.crosscoder.decoder.dtype)
        self.sums.add(self.crosscoder, x, document=batch.document, template=batch.template)

    def on_predict_epoch_end(self) -> None:
        """Combine the ranks."""
        assert self.sums is not None
        add_over_ranks_(self.sums)


def add_over_ranks_(sums: ScalingSums) -> None:
    """Replace the sums of this rank by those over all ranks; nothing to do in a single process."""
    if not distributed.is_available() or not distributed.is_initialized():
        return
    for name in ADDED:
        distributed.all_reduce(getattr(sums, name))
    distributed.all_reduce(sums.maximum, op=distributed.ReduceOp.MAX)
    rest: list = [None] * distributed.get_world_size()
    distributed.all_gather_object(rest, (sums.n_tokens, sums.documents, sums.fit))
    own = distributed.get_rank()
    for n_tokens, documents, fit in rest[:own] + rest[own + 1 :]:
        sums.n_tokens += n_tokens
        sums.documents.merge(documents)
        if sums.fit is not None and fit is not None:
            sums.fit.merge(fit)
        sums.fit = sums.fit or fit
