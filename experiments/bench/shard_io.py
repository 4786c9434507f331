"""Disk rates: writing shards and reading shuffled training batches, beside raw sequential access."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from crossdiff.data.harvest.write import CorpusShard, corpus_shards, layer_tensors, write_record
from crossdiff.data.paired_activations import PairedActivations
from crossdiff.data.shard_files import write_shard
from crossdiff.data.tokens import TokenSet
from experiments.bench.harvest_work import make_tokens

_CHUNK = 1 << 24
_LAYER = 0


def io_rates(folder: Path, *, d_model: int, n_bytes: int, shard_tokens: int, rounds: int) -> dict[str, float]:
    """Median GB/s of raw and shard writing (fsynced), and of raw and shuffled reading with a cold cache."""
    half = n_bytes // 2
    tokens = make_tokens(folder / "tokens", n_tokens=half // (2 * d_model), context=1024)
    write_raw, write_ours = [], []
    (folder / "raw").mkdir()
    for name in ("base", "tuned"):
        for shard, tensors in _shards(tokens, d_model, shard_tokens):
            write_raw.append(_raw_write(folder / "raw" / f"{name}_{shard.file}", tensors["x"]))
            write_ours.append(_write(folder / name, shard, tensors, tokens))
        shards = corpus_shards(tokens, shard_tokens=shard_tokens)
        write_record(folder / name, tokens, layers=[_LAYER], shards=shards, hashes={})
    shutil.rmtree(folder / "raw")
    raw, ours = [], []
    for number in range(rounds):
        raw.append(_raw_read(folder))
        ours.append(_shuffled_read(folder, seed=number))
    figures = {
        "write_raw_gb_s": _median(write_raw),
        "write_shard_gb_s": _median(write_ours),
        "read_raw_gb_s": _median(raw),
        "read_shuffled_gb_s": _median(ours),
        "read_gb": sum(path.stat().st_size for path in _files(folder)) / 1e9,
    }
    figures["write_ratio"] = figures["write_shard_gb_s"] / figures["write_raw_gb_s"]
    figures["read_ratio"] = figures["read_shuffled_gb_s"] / figures["read_raw_gb_s"]
    return figures


def _shards(tokens: TokenSet, d_model: int, shard_tokens: int) -> Iterator[tuple[CorpusShard, dict]]:
    generator = torch.Generator().manual_seed(0)
    for shard in corpus_shards(tokens, shard_tokens=shard_tokens):
        x = torch.randn(shard.n_rows, d_model, generator=generator).bfloat16()
        yield shard, layer_tensors(x, shard, tokens, storage="bfloat16")


def _raw_write(path: Path, x: torch.Tensor) -> float:
    """Into a new file, as shards are: one that is overwritten finds its pages still in memory."""
    data = memoryview(x.view(torch.uint8).numpy().data).cast("B")
    start = time.perf_counter()
    with path.open("wb", buffering=0) as handle:
        for place in range(0, len(data), _CHUNK):
            handle.write(data[place : place + _CHUNK])
        os.fsync(handle.fileno())
    return len(data) / (time.perf_counter() - start) / 1e9


def _write(folder: Path, shard: CorpusShard, tensors: dict, tokens: TokenSet) -> float:
    path = folder / f"layer_{_LAYER}" / shard.file
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"token_hash": tokens.token_hash, "layer": str(_LAYER)}
    start = time.perf_counter()
    write_shard(path, tensors, metadata=metadata)
    return path.stat().st_size / (time.perf_counter() - start) / 1e9


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*/layer_{_LAYER}/shard_*.safetensors"))


def _drop_cache(folder: Path) -> None:
    for path in _files(folder):
        with path.open("rb") as handle:
            os.fsync(handle.fileno())
            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _raw_read(folder: Path) -> float:
    """Every file from front to back in one thread."""
    _drop_cache(folder)
    buffer, n_bytes = bytearray(_CHUNK), 0
    start = time.perf_counter()
    for path in _files(folder):
        with path.open("rb", buffering=0) as handle:
            while n_read := handle.readinto(buffer):
                n_bytes += n_read
    return n_bytes / (time.perf_counter() - start) / 1e9


def _shuffled_read(folder: Path, *, seed: int, batch_size: int = 2048) -> float:
    """One epoch of training batches; bytes of the rows handed over, as stored."""
    _drop_cache(folder)
    data = PairedActivations.open(folder / "tokens", [folder / "base", folder / "tuned"], layer=_LAYER)
    n_batches = len(data.rows("train")) // batch_size
    start = time.perf_counter()
    for number in range(n_batches):
        data.training_batch(number, seed=seed, batch_size=batch_size)
    seconds = time.perf_counter() - start
    data.close()
    return n_batches * batch_size * data.n_models * data.d_model * 2 / seconds / 1e9


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
