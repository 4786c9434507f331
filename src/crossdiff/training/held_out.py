"""Held-out activations that a crosscoder is measured on: a sample during training, all of them afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from crossdiff.core.axes import Activations
from crossdiff.training.source import ActivationSource, check_finite

_SAMPLE = 0x5A3B1E
"""Sets the sample's random stream apart from others that begin from the run's seed."""


class HeldOutSample:
    """The held-out rows that every validation of one run looks at, a pure function of rows and seed.

    The first pass reads them, with nothing but their documents around them; they then stay in this process's
    memory in the number format of the harvest (`n_tokens` x models x d_model values).
    """

    def __init__(self, source: ActivationSource, *, n_tokens: int, batch_size: int, seed: int) -> None:
        self.source, self.n_tokens, self.batch_size, self.seed = source, n_tokens, batch_size, seed
        self._kept: list[Tensor] | None = None

    def batches(self, device: torch.device) -> Iterator[Activations]:
        """Raw activations in corpus order; a first pass that is broken off is made again."""
        if self._kept is not None:
            for stored in self._kept:
                yield stored.to(device, non_blocking=True).float()
            return
        rows = sampled_rows(self.source, n_tokens=self.n_tokens, seed=self.seed)
        read = []
        for batch in self.source.batches_of(rows, batch_size=self.batch_size):
            check_finite(batch, self.source)
            read.append(batch.stored.cpu())
            yield batch.activations_on(device).x
        self._kept = read


def sampled_rows(source: ActivationSource, *, n_tokens: int, seed: int) -> Int[Tensor, " row"]:
    """`n_tokens` held-out rows: documents drawn whole, the last one cut; all rows where there are no more."""
    rows = source.rows("validation")
    if len(rows) <= n_tokens:
        return rows
    counts = source.document_of(rows).unique_consecutive(return_counts=True)[1].numpy()
    order = np.random.default_rng((_SAMPLE, seed % 2**63)).permutation(len(counts))
    ends = counts[order].cumsum()
    n_documents = int(np.searchsorted(ends, n_tokens)) + 1
    lengths = counts[order[:n_documents]]
    lengths[-1] -= ends[n_documents - 1] - n_tokens
    starts = (counts.cumsum() - counts)[order[:n_documents]]
    places = np.concatenate([np.arange(a, a + n) for a, n in zip(starts, lengths, strict=True)])
    return rows[torch.from_numpy(np.sort(places))]


def held_out_batches(
    source: ActivationSource, *, batch_size: int, device: torch.device
) -> Iterator[Activations]:
    """Raw activations of all held-out rows, in corpus order."""
    for batch in source.batches(split="validation", batch_size=batch_size):
        check_finite(batch, source)
        yield batch.activations_on(device).x
