"""Where training gets its activations from, and the checks every batch passes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import IterableDataset

from crossdiff.data.paired_activations import Split
from crossdiff.data.paired_batch import PairedBatch


class ActivationSource(Protocol):
    """What `PairedActivations` offers to a training run; a live source or a test can offer the same."""

    n_models: int
    d_model: int

    def statistics(self) -> tuple[Float[Tensor, "model d_model"], Float[Tensor, "model d_model"]]:
        """Float64 mean and variance of the training rows, raw units."""
        ...

    def rows(self, split: Split = "all") -> Int[Tensor, " row"]:
        """Rows kept by the mask."""
        ...

    def batches(self, *, split: Split = "all", batch_size: int) -> Iterator[PairedBatch]:
        """Kept rows in corpus order."""
        ...

    def document_of(self, rows: Int[Tensor, " row"]) -> Int[Tensor, " row"]:
        """Index of the document that each row belongs to; documents are consecutive rows."""
        ...

    def batches_of(self, rows: Int[Tensor, " row"], *, batch_size: int) -> Iterator[PairedBatch]:
        """The given rows in corpus order, at a cost that grows with their documents alone."""
        ...

    def training_batch(self, number: int, *, seed: int, batch_size: int) -> PairedBatch:
        """Batch `number` of the shuffled stream, a pure function of its arguments."""
        ...


class AddressedBatches(IterableDataset):
    """Training batches `start`, `start + 1`, ..., `stop - 1`; a resumed run starts where it stopped."""

    def __init__(
        self, source: ActivationSource, *, seed: int, batch_size: int, start: int, stop: int
    ) -> None:
        super().__init__()
        self.source, self.seed, self.batch_size = source, seed, batch_size
        self.start, self.stop = start, stop

    def __iter__(self) -> Iterator[PairedBatch]:
        for number in range(self.start, self.stop):
            yield self.source.training_batch(number, seed=self.seed, batch_size=self.batch_size)


def check_finite(batch: PairedBatch, source: ActivationSource) -> None:
    """ValueError that names the first rows, documents and shard with NaN or infinite activations.

    A mean is finite only if every value is; one that is not is looked at value by value.
    """
    if bool(batch.stored.mean().isfinite()):
        return
    finite = torch.isfinite(batch.stored).all(dim=2)
    if bool(finite.all()):
        return
    token, model = (~finite).cpu().nonzero(as_tuple=True)
    rows = batch.row[token][:5].tolist()
    token_set = getattr(source, "token_set", None)
    documents = [] if batch.document is None else batch.document[token].unique()[:5].tolist()
    ids = None if token_set is None else token_set.document_ids
    names = documents if ids is None else [ids[d] for d in documents]
    place = getattr(source, "place", None)
    first = f"; the first is {place(rows[0], int(model[0]))}" if place is not None else ""
    raise ValueError(
        f"{len(token)} rows of activations are NaN or infinite: token rows {rows}, documents {names}, "
        f"model(s) {model.unique().tolist()} (0 is base){first}; "
        "harvest again with dtype=float32, or drop these documents"
    )


def check_enough(source: ActivationSource, *, batch_size: int) -> None:
    """ValueError when there are fewer training tokens than one batch holds, or nothing is held out."""
    n_train, n_validation = len(source.rows("train")), len(source.rows("validation"))
    if n_train < batch_size:
        raise ValueError(
            f"the corpus has {n_train:,} training tokens, fewer than one batch of {batch_size:,}; "
            "give more text, or set training.batch_size lower"
        )
    if n_validation == 0:
        raise ValueError("no token is held out for validation; give a corpus of at least two documents")
