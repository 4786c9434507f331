"""The forward pass of a harvest: one corpus shard at a time, rows put back into token order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from crossdiff.data.batching import Batch, batch_arrays, form_batches
from crossdiff.data.harvest_files import CorpusShard
from crossdiff.data.tokens import TokenSet
from crossdiff.models.load import TruncatedModel


@dataclass
class PassCounts:
    """What went through the model."""

    tokens: int = 0
    padding: int = 0
    splits: list[str] = field(default_factory=list)
    """Batches that were halved because memory ran out; their shards are exempt from bit identity."""


@dataclass
class Harvester:
    """A truncated model, and how documents are put through it."""

    model: TruncatedModel
    layers: Sequence[int]
    batching: Literal["pack", "bucket"]
    batch_tokens: int
    context: int
    device: str

    def shard(
        self, token_set: TokenSet, shard: CorpusShard, counts: PassCounts
    ) -> dict[int, Shaped[Tensor, "row d_model"]]:
        """Activations of every layer for one corpus shard, in token order and in the model's dtype."""
        return self.documents(token_set, torch.arange(shard.first_document, shard.last_document), counts)

    def documents(
        self, token_set: TokenSet, documents: Int[Tensor, " document"], counts: PassCounts
    ) -> dict[int, Shaped[Tensor, "row d_model"]]:
        """Activations of some documents, one after the other; batches are formed among these alone."""
        starts = token_set.offsets[documents]
        lengths = token_set.offsets[documents + 1] - starts
        work = _Work(token_set.ids, starts, lengths, counts)
        batches = form_batches(
            lengths.tolist(), batching=self.batching, batch_tokens=self.batch_tokens, context=self.context
        )
        for batch in batches:
            self._run(batch, work)
        return work.found

    def _run(self, batch: Batch, work: _Work) -> None:
        try:
            self._forward(batch, work)
        except torch.OutOfMemoryError:
            halves = batch.halves(work.lengths.tolist())
            if len(halves) < 2:
                raise
            work.counts.splits.append(
                f"{len(batch.rows)} rows of {batch.width} from token {int(work.starts[0])}"
            )
            torch.cuda.empty_cache()
            for half in halves:
                self._run(half, work)
            return
        work.counts.tokens += batch.n_tokens
        work.counts.padding += batch.n_padding

    def _forward(self, batch: Batch, work: _Work) -> None:
        arrays = batch_arrays(batch, work.ids, work.starts, work.lengths)
        positions = arrays.positions.to(self.device) if self.batching == "pack" else None
        outputs = self.model.outputs(arrays.tokens.to(self.device), positions, layers=self.layers)
        real = (arrays.rows >= 0).flatten()
        rows = arrays.rows.flatten()[real]
        for layer in self.layers:
            x = outputs[layer].flatten(0, 1)
            if layer not in work.found:
                work.found[layer] = torch.empty(int(work.lengths.sum()), x.shape[1], dtype=x.dtype)
            work.found[layer][rows] = x[real.to(x.device)].cpu()


@dataclass
class _Work:
    """Documents in hand: where they lie among the ids, and the rows found so far."""

    ids: Int[Tensor, " token"]
    starts: Int[Tensor, " document"]
    lengths: Int[Tensor, " document"]
    counts: PassCounts
    found: dict[int, Tensor] = field(default_factory=dict)
