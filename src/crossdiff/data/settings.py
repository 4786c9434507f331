"""Where training batches come from: harvested shards on disk, or running models."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from crossdiff.settings import Settings


class CacheSource(Settings):
    """Activations are harvested once into shards on disk and read from there."""

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset()

    storage: Literal["model", "float32", "bfloat16", "float16", "int8"] = "model"
    """Number format of a stored row; `model` is the model's own dtype, int8 carries one scale per row."""
    batching: Literal["pack", "bucket"] = "pack"
    """Short documents share a row without attention between them, or lie in rows of like length."""
    batch_tokens: int = Field(default=8192, ge=1)
    """Tokens of one forward pass, padding included (one row at least)."""
    shard_tokens: int = Field(default=131_072, ge=1)
    """Tokens of one corpus shard: the unit of resuming and of parallel work, one file per layer."""


class LiveSource(Settings):
    """The models run during training and no activation is stored.

    Batches are those of the cache (equal to rounding): windows of blocks are computed ahead in a thread
    and mixed in memory, two windows of 1 GiB at a time.
    """

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset()

    batching: Literal["pack", "bucket"] = "pack"
    batch_tokens: int = Field(default=8192, ge=1)
    statistics_tokens: int = Field(default=1_000_000, ge=1)
    """Tokens, spread over the corpus, from which means and variances are taken beforehand."""
