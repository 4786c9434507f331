"""A harvest job (model, layers, tokens, folder, progress) and its forward pass."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from crossdiff.data.batching import Batch, batch_arrays, form_batches
from crossdiff.data.harvest.write import CorpusShard, Storage, corpus_shards
from crossdiff.data.settings import CacheSource, LiveSource
from crossdiff.data.tokens import TokenSet
from crossdiff.io.artifacts import lock
from crossdiff.io.tables import read_json
from crossdiff.models.load import TruncatedModel, load_truncated
from crossdiff.models.pair import ModelSettings


@dataclass
class PassCounts:
    """Tokens, padding and split batches of forward passes."""

    tokens: int = 0
    padding: int = 0
    splits: list[str] = field(default_factory=list)
    """Batches that were halved for lack of memory; their shards may differ in rounding."""


@dataclass
class Harvester:
    """A truncated model, and the forward pass over documents."""

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
        """Activations of some documents, one after the other, in batches of these alone."""
        starts = token_set.offsets[documents]
        lengths = token_set.offsets[documents + 1] - starts
        work = _Work(token_set.ids, starts, lengths, counts, _Landing(int(lengths.sum())))
        rotary = self.model.rotary
        batches = form_batches(
            lengths.tolist(),
            batching=self.batching,
            batch_tokens=self.batch_tokens,
            context=self.context,
            group=None if rotary is None else rotary.group,
        )
        for batch in batches:
            self._run(batch, work)
        work.landing.settle()
        return work.landing.by_layer

    def _run(self, batch: Batch, work: _Work) -> None:
        try:
            self._forward(batch, work)
        except torch.OutOfMemoryError:
            halves = batch.halves(work.lengths.tolist())
            if len(halves) < 2:
                raise ValueError(
                    f"one document of {batch.n_tokens:,} tokens does not fit the memory of {self.device}; "
                    "set corpus.context lower, choose attention=sdpa or flash_attention_2, or a larger device"
                ) from None
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
        real = (arrays.rows >= 0).long().to(self.device) if self.model.masks_padding else None
        outputs = self.model.outputs(arrays.tokens.to(self.device), positions, layers=self.layers, real=real)
        flat = arrays.rows.flatten()
        places = (flat >= 0).nonzero().flatten()
        on_device = places.to(self.device)
        for layer in self.layers:
            x = outputs[layer].flatten(0, 1).index_select(0, on_device)
            work.landing.add(layer, x, flat[places])
        work.landing.settle(in_flight=_IN_FLIGHT)


_IN_FLIGHT = 2
"""Most copies from an accelerator that overlap with the next batch."""


@dataclass
class _Landing:
    """Rows on their way to the host: copies from an accelerator overlap with the next forward pass."""

    n_rows: int
    by_layer: dict[int, Tensor] = field(default_factory=dict)
    moving: deque[tuple[int, Tensor, Tensor, torch.cuda.Event]] = field(default_factory=deque)

    def add(self, layer: int, x: Shaped[Tensor, "token d_model"], rows: Int[Tensor, " token"]) -> None:
        """Accept rows; those of a CUDA device are copied in the background."""
        if x.device.type != "cuda":
            self._place(layer, x, rows)
            return
        host = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
        host.copy_(x, non_blocking=True)
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(x.device))
        self.moving.append((layer, host, rows, event))

    def settle(self, *, in_flight: int = 0) -> None:
        """Put copied rows in place until at most `in_flight` copies remain."""
        while len(self.moving) > in_flight:
            layer, host, rows, event = self.moving.popleft()
            event.synchronize()
            self._place(layer, host, rows)

    def _place(self, layer: int, x: Shaped[Tensor, "token d_model"], rows: Int[Tensor, " token"]) -> None:
        if layer not in self.by_layer:
            self.by_layer[layer] = torch.empty(self.n_rows, x.shape[1], dtype=x.dtype)
        self.by_layer[layer][rows] = x


@dataclass
class _Work:
    """The documents being read: their places among the ids, counts, and rows so far."""

    ids: Int[Tensor, " token"]
    starts: Int[Tensor, " document"]
    lengths: Int[Tensor, " document"]
    counts: PassCounts
    landing: _Landing


@dataclass(frozen=True)
class HarvestJob:
    """One model, its layers, the tokens, and the folder to fill."""

    model: ModelSettings
    path: str
    """Argument of `from_pretrained`."""
    fingerprint: str
    layers: tuple[int, ...]
    source: CacheSource | LiveSource
    tokens: Path
    folder: Path
    device: str = "cpu"
    progress: bool = True

    @cached_property
    def token_set(self) -> TokenSet:
        """The tokens, memory-mapped."""
        return TokenSet.open(self.tokens)

    @cached_property
    def storage(self) -> Storage:
        """Number format of the shards."""
        match self.source:
            case CacheSource(storage="model") | LiveSource():
                return self.model.dtype
            case CacheSource(storage=storage):
                return storage  # type: ignore[return-value]

    @cached_property
    def shards(self) -> list[CorpusShard]:
        """All corpus shards of the token set; empty where nothing is stored."""
        match self.source:
            case CacheSource(shard_tokens=shard_tokens):
                return corpus_shards(self.token_set, shard_tokens=shard_tokens)
            case LiveSource():
                return []

    @property
    def work(self) -> Path:
        """Folder of receipts and locks of the unfinished job."""
        return self.folder / "progress"

    def receipt(self, shard: CorpusShard) -> Path:
        """File that exists once every layer of a shard is on disk."""
        return self.work / f"{shard.index:05d}.json"

    def is_done(self, shard: CorpusShard) -> bool:
        """Whether the shard was written by a job of the same inputs."""
        path = self.receipt(shard)
        return path.is_file() and read_json(path)["job"] == self.identity

    def claim(self, shard: CorpusShard) -> TextIOWrapper | None:
        """A lock on the shard, or None while another process has it; the kernel frees a dead process's lock.

        Without locks in the file system two processes may write the same shard, with the same bytes.
        """
        handle = (self.work / f"{shard.index:05d}.lock").open("a")
        if lock(handle, wait=False):
            return handle
        handle.close()
        return None

    @cached_property
    def origin(self) -> dict[str, Any]:
        """What determines the rows of a layer."""
        return {
            "token_hash": self.token_set.token_hash,
            "fingerprint": self.fingerprint,
            "model": self.model.identity(),
            "source": self.source.identity(),
        }

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What a draft must have in common with the job to be continued."""
        return {**self.origin, "layers": list(self.layers)}

    def load_model(self) -> TruncatedModel:
        """The model's first blocks, on the job's device."""
        return load_truncated(self.model, self.path, layers=self.layers, device=self.device)

    def harvester(self, model: TruncatedModel) -> Harvester:
        """The forward pass over documents of the token set."""
        return Harvester(
            model=model,
            layers=self.layers,
            batching=self.source.batching,
            batch_tokens=self.source.batch_tokens,
            context=self.token_set.longest,
            device=self.device,
        )
