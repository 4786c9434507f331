"""One pass of latent scaling over all kept tokens, by Lightning, on one device or several.

With several, one process per device is started here. Each reads neighbouring documents, so that a document's
tokens meet in one process; the sums, float64, are added over all when the pass ends.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator

import pytorch_lightning as pl
import torch
from jaxtyping import Int
from torch import Tensor, distributed
from torch.utils.data import DataLoader, IterableDataset

from crossdiff.core.collective import own_rank
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.difference_effect import EffectSums
from crossdiff.core.latent_scaling import ScalingSums, empty_sums
from crossdiff.core.streaming import PassSums
from crossdiff.data.paired_batch import PairedBatch
from crossdiff.io.progress import track
from crossdiff.training.nodes import check_gpus
from crossdiff.training.ranks import in_ranks
from crossdiff.training.source import ActivationSource
from crossdiff.training.strategy import environment, placed, quiet_lightning

Sums = ScalingSums | EffectSums
"""Of a diff_sae its effects."""
Opened = tuple[Crosscoder, ActivationSource]
"""A crosscoder in the number format of the pass, and the activations it is to be scaled on."""


def scaling_sums(
    open_both: Callable[[], Opened], *, batch_size: int, device: str, n_devices: int, progress: bool = False
) -> tuple[Crosscoder, Sums]:
    """The crosscoder on its device, and the sums of a pass over `n_devices` devices of this kind.

    With several devices `open_both` has to be picklable; it is called in every process.
    """
    crosscoder, source = open_both()
    if n_devices == 1:
        return crosscoder, pass_over(
            crosscoder, source, batch_size=batch_size, device=device, progress=progress
        )
    check_gpus(device, n_devices, setting="dispatch.devices")
    check_documents(source, n_devices)
    arguments = (open_both, batch_size, device, n_devices, progress)
    return crosscoder.cpu(), in_ranks(_rank, arguments, n_ranks=n_devices)


def _rank(
    open_both: Callable[[], Opened], batch_size: int, device: str, n_devices: int, progress: bool
) -> Sums:
    crosscoder, source = open_both()
    return pass_over(
        crosscoder, source, batch_size=batch_size, device=device, n_devices=n_devices, progress=progress
    )


def pass_over(
    crosscoder: Crosscoder,
    source: ActivationSource,
    *,
    batch_size: int,
    device: str = "cpu",
    n_devices: int = 1,
    progress: bool = False,
) -> Sums:
    """The sums over all kept rows; in one of `n_devices` processes it reads its part of them.

    Where there are several the sums come back on the CPU.
    """
    module = LatentScalingModule(crosscoder)
    batches = DataLoader(
        PassBatches(source, batch_size, n_parts=n_devices, progress=progress), batch_size=None
    )
    with quiet_lightning():
        trainer = pl.Trainer(
            **placed(device, n_devices),
            plugins=[environment(n_devices)],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            inference_mode=False,  # what is made in it could not be changed afterwards
        )
        try:
            trainer.predict(module, batches, return_predictions=False)
        except SystemExit as error:
            if isinstance(error.__context__, KeyboardInterrupt):  # Lightning makes exit code 1 of Ctrl-C
                raise KeyboardInterrupt from None
            raise
    assert module.sums is not None
    if n_devices == 1:
        crosscoder.to(device)  # Lightning takes it off
        return module.sums
    return module.sums.to("cpu")


class PassBatches(IterableDataset):
    """Kept rows in corpus order: all, or of `n_parts` processes those that are this one's.

    From the first row on TERM has the handler of before this object; Lightning's only notes the signal.
    """

    def __init__(self, source: ActivationSource, batch_size: int, *, n_parts: int, progress: bool) -> None:
        super().__init__()
        self.source, self.batch_size, self.n_parts, self.progress = source, batch_size, n_parts, progress
        self.on_term = signal.getsignal(signal.SIGTERM)

    def __iter__(self) -> Iterator[PairedBatch]:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.on_term)
        if self.n_parts == 1:
            shown, n_rows = self.progress, len(self.source.rows())
            batches = self.source.batches(split="all", batch_size=self.batch_size)
        else:
            part = own_rank()
            rows = part_of_rows(self.source, part, self.n_parts)
            shown, n_rows = self.progress and part == 0, len(rows)
            batches = self.source.batches_of(rows, batch_size=self.batch_size)
        total = -(-n_rows // self.batch_size)
        yield from track(batches, total=total, description="scale", unit="batch", enabled=shown)


def part_of_rows(source: ActivationSource, part: int, n_parts: int) -> Int[Tensor, " row"]:
    """Kept rows of one of `n_parts` runs of whole, neighbouring documents with about equally many rows."""
    rows = source.rows()
    document = source.document_of(rows)
    cuts = [0, *(_start(document, len(rows) * cut // n_parts) for cut in range(1, n_parts)), len(rows)]
    return rows[cuts[part] : cuts[part + 1]]


def _start(document: Int[Tensor, " row"], row: int) -> int:
    """First row of the document that `row` belongs to."""
    return int(torch.searchsorted(document, document[row]))


def check_documents(source: ActivationSource, n_parts: int) -> None:
    """ValueError where some process would have no document to read."""
    if not len(source.rows()):
        raise ValueError(why() if (why := getattr(source, "why_none_is_kept", None)) else "no token is kept")
    if any(not len(part_of_rows(source, part, n_parts)) for part in range(n_parts)):
        raise ValueError(
            f"dispatch.devices={n_parts} shares whole documents, and the kept tokens do not lie in enough of "
            "them; give fewer devices"
        )


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
