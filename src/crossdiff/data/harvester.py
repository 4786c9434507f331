"""The forward pass of a harvest: one corpus shard at a time, rows put back into token order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Shaped
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
        offsets = token_set.offsets[shard.first_document : shard.last_document + 1]
        lengths = offsets.diff().tolist()
        batches = form_batches(
            lengths, batching=self.batching, batch_tokens=self.batch_tokens, context=self.context
        )
        found: dict[int, Tensor] = {}
        for batch in batches:
            self._run(batch, token_set.ids, offsets, found, counts)
        return found

    def _run(
        self, batch: Batch, ids: Tensor, offsets: Tensor, found: dict[int, Tensor], counts: PassCounts
    ) -> None:
        try:
            self._forward(batch, ids, offsets, found)
        except torch.OutOfMemoryError:
            halves = batch.halves(offsets.diff().tolist())
            if len(halves) < 2:
                raise
            counts.splits.append(f"{len(batch.rows)} rows of {batch.width} at token {int(offsets[0])}")
            torch.cuda.empty_cache()
            for half in halves:
                self._run(half, ids, offsets, found, counts)
            return
        counts.tokens += batch.n_tokens
        counts.padding += batch.n_padding

    def _forward(self, batch: Batch, ids: Tensor, offsets: Tensor, found: dict[int, Tensor]) -> None:
        tokens, positions, places = batch_arrays(batch, ids, offsets, padding=0)
        packed = self.batching == "pack"
        outputs = self.model.outputs(
            tokens.to(self.device), positions.to(self.device) if packed else None, layers=self.layers
        )
        real = (places >= 0).flatten()
        rows = places.flatten()[real] - int(offsets[0])
        n_rows = int(offsets[-1] - offsets[0])
        for layer in self.layers:
            x = outputs[layer].flatten(0, 1)
            if layer not in found:
                found[layer] = torch.empty(n_rows, x.shape[1], dtype=x.dtype)
            found[layer][rows] = x[real.to(x.device)].cpu()
