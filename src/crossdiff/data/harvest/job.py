"""What a harvest job is: one model, its layers, the tokens, the folder to fill, and what is done already."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from crossdiff.data.harvest.forward import Harvester
from crossdiff.data.harvest.write import CorpusShard, Storage, corpus_shards
from crossdiff.data.settings import CacheSource, LiveSource
from crossdiff.data.tokens import TokenSet
from crossdiff.io.locks import lock
from crossdiff.io.tables import read_json
from crossdiff.models.load import TruncatedModel, load_truncated
from crossdiff.models.pair import ModelSettings


@dataclass(frozen=True)
class HarvestJob:
    """One model, its layers, the tokens, and the folder to fill."""

    model: ModelSettings
    path: str
    """What `from_pretrained` is given."""
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
        """All corpus shards of the token set; none where nothing is stored."""
        match self.source:
            case CacheSource(shard_tokens=shard_tokens):
                return corpus_shards(self.token_set, shard_tokens=shard_tokens)
            case LiveSource():
                return []

    @property
    def work(self) -> Path:
        """Receipts and locks of the job while it is not finished."""
        return self.folder / "progress"

    def receipt(self, shard: CorpusShard) -> Path:
        """Small file that says that every layer of a shard is on disk."""
        return self.work / f"{shard.index:05d}.json"

    def is_done(self, shard: CorpusShard) -> bool:
        """Whether the shard was written by a job of the same inputs."""
        path = self.receipt(shard)
        return path.is_file() and read_json(path)["job"] == self.identity

    def claim(self, shard: CorpusShard) -> TextIOWrapper | None:
        """An open lock on the shard, or None while another process has it; the kernel frees a dead process's.

        Where the file system has no locks two processes may do the same shard: the same bytes, renamed twice.
        """
        handle = (self.work / f"{shard.index:05d}.lock").open("a")
        if lock(handle, wait=False):
            return handle
        handle.close()
        return None

    @cached_property
    def origin(self) -> dict[str, Any]:
        """What decides the rows of a layer; other layers of the same pass do not."""
        return {
            "token_hash": self.token_set.token_hash,
            "fingerprint": self.fingerprint,
            "model": self.model.identity(),
            "source": self.source.identity(),
        }

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What a draft has to agree on to be continued."""
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
