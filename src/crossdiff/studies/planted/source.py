"""Planted activations in memory as a source for training and scaling."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from crossdiff.data.paired_activations import Split
from crossdiff.data.paired_batch import PairedBatch
from crossdiff.studies.planted.world import Planted

HELD_OUT_EVERY = 20


class PlantedSource:
    """Planted activations with the interface of `PairedActivations`.

    Documents are 0 to `n_documents - 1`; every 20th is held out of training.
    """

    def __init__(self, planted: Planted, *, n_documents: int) -> None:
        self.planted, self.n_documents = planted, n_documents
        self.n_models, self.d_model = 2, planted.settings.d_model
        self.document = torch.arange(n_documents).repeat_interleave(planted.settings.document_length)
        self.x = torch.empty(len(self.document), 2, self.d_model)
        place = 0
        for batch in planted.batches(first=0, n_documents=n_documents):
            self.x[place : place + len(batch.x)] = batch.x
            place += len(batch.x)

    @cached_property
    def held_out(self) -> Tensor:
        """Rows of held-out documents."""
        return self.document % HELD_OUT_EVERY == 0

    def statistics(self) -> tuple[Float[Tensor, "model d_model"], Float[Tensor, "model d_model"]]:
        """Float64 mean and variance of the training rows, raw units."""
        rows = self.x[~self.held_out].double()
        return rows.mean(dim=0), rows.var(dim=0, correction=0)

    def rows(self, split: Split = "all") -> Int[Tensor, " row"]:
        """Rows of a split."""
        kept = {"all": self.document >= 0, "validation": self.held_out, "train": ~self.held_out}[split]
        return kept.nonzero().flatten()

    def batches(self, *, split: Split = "all", batch_size: int) -> Iterator[PairedBatch]:
        """Rows in document order."""
        for rows in self.rows(split).split(batch_size):
            yield self._batch(rows)

    def document_of(self, rows: Int[Tensor, " row"]) -> Int[Tensor, " row"]:
        """Document of each row."""
        return self.document[rows]

    def batches_of(self, rows: Int[Tensor, " row"], *, batch_size: int) -> Iterator[PairedBatch]:
        """The given rows in document order."""
        for part in rows.sort().values.split(batch_size):
            yield self._batch(part)

    def training_batch(self, number: int, *, seed: int, batch_size: int) -> PairedBatch:
        """Batch `number` of a stream that reshuffles every epoch."""
        rows = self.rows("train")
        per_epoch = len(rows) // batch_size
        epoch, place = divmod(number, per_epoch)
        generator = torch.Generator().manual_seed((seed << 20) + epoch)
        order = torch.randperm(len(rows), generator=generator)
        return self._batch(rows[order[place * batch_size : (place + 1) * batch_size]])

    def _batch(self, rows: Tensor) -> PairedBatch:
        template = torch.zeros(len(rows), dtype=torch.bool)
        return PairedBatch(stored=self.x[rows], row=rows, document=self.document[rows], template=template)
