"""Shard files: safetensors with activations of consecutive tokens and a check sum per row.

A harvest may have more shards (1,523 at 200M tokens) than a process may open files (`ulimit -n` is often
1024), and a memory map keeps its file open. So whole tensors are read with the file closed after, and few
maps exist at a time, for single rows.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from crossdiff.io.tables import errors_name

FORMAT = "crossdiff.shard"
VERSION = 2

MAPS = 64
"""Most memory maps, and so open files, of a process for gathering rows."""
_CHUNK = 1 << 24
_DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I8": torch.int8,
    "U8": torch.uint8,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def write_shard(path: Path, tensors: Mapping[str, Tensor], *, metadata: Mapping[str, str]) -> str:
    """Write tensors aside, fsync, rename; returns the sha256 of the file.

    The same tensors and metadata always give the same bytes.
    """
    wide_first = sorted(tensors.items(), key=lambda item: -item[1].itemsize)  # keeps every tensor aligned
    arrays = {name: tensor.detach().cpu().contiguous() for name, tensor in wide_first}
    parts = [_header(arrays, metadata), *(_bytes_of(array) for array in arrays.values())]
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with errors_name(path), ThreadPoolExecutor(1) as pool, aside.open("wb", buffering=0) as handle:
            digest = pool.submit(_sha256, parts)
            for part in parts:
                _write_all(handle, part)
            os.fsync(handle.fileno())
            result = digest.result()
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    return result


@dataclass(frozen=True, eq=False)
class ShardFile:
    """One shard, closed, with a header that fits the file's size."""

    path: Path
    metadata: dict[str, str]
    entries: dict[str, dict[str, Any]]
    data_start: int

    @classmethod
    def open(cls, path: Path) -> ShardFile:
        """Read and check the header; ValueError for a truncated or foreign file."""
        header, data_start = _read_header(path)
        metadata = header.pop("__metadata__", {})
        if metadata.get("format") != FORMAT or metadata.get("version") != str(VERSION):
            raise ValueError(
                f"{path} is {metadata.get('format')!r} version {metadata.get('version')!r}, this crossdiff "
                f"reads {FORMAT!r} version {VERSION}; run the harvest step again"
            )
        expected = data_start + max(entry["data_offsets"][1] for entry in header.values())
        size = path.stat().st_size
        if size != expected:
            raise ValueError(
                f"{path} was cut or altered: it has {size:,} bytes, its header says {expected:,}; "
                f"remove {path.parent.parent} and run the same command again"
            )
        return cls(path, metadata, header, data_start)

    @property
    def names(self) -> list[str]:
        """Names of the tensors inside."""
        return list(self.entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor."""
        return tuple(self.entries[name]["shape"])

    def dtype(self, name: str) -> torch.dtype:
        """Storage dtype of one tensor."""
        return _DTYPES[self.entries[name]["dtype"]]

    def byte_offset(self, name: str) -> int:
        """Position of the tensor's first byte in the file."""
        return self.data_start + self.entries[name]["data_offsets"][0]

    def tensor(self, name: str) -> Tensor:
        """A whole tensor, read into memory."""
        return self.tensors([name])[name]

    def tensors(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Whole tensors, read in one opening of the file."""
        tensors = {name: torch.empty(self.shape(name), dtype=self.dtype(name)) for name in names}
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            for name, target in tensors.items():
                read_into(descriptor, target, self.byte_offset(name), self.path)
        finally:
            os.close(descriptor)
        return tensors

    def rows(self, name: str, rows: Int[Tensor, " row"]) -> Shaped[Tensor, "row *rest"]:
        """A copy of some rows of a tensor; only their pages are read."""
        n_rows, *rest = self.shape(name)
        start, stop = (self.data_start + offset for offset in self.entries[name]["data_offsets"])
        stored = _mapped(self)[start:stop].reshape(n_rows, -1)
        picked = torch.from_numpy(stored.take(rows.numpy(), axis=0))
        return picked.view(self.dtype(name)).reshape(len(rows), *rest)


def read_into(descriptor: int, target: Tensor, offset: int, path: Path) -> None:
    """Fill a contiguous `target` with the bytes from `offset` on; ValueError where the file ends early."""
    view = _bytes_of(target)
    while len(view):
        n_read = os.preadv(descriptor, [view], offset)
        if n_read == 0:
            raise ValueError(f"{path} ends early; remove {path.parent.parent} and run again")
        view, offset = view[n_read:], offset + n_read


@lru_cache(MAPS)
def _mapped(shard: ShardFile) -> np.ndarray:
    """The shard's bytes, mapped; the cache keeps the last `MAPS` maps open.

    Read-only, because a writable private map counts as committed memory.
    """
    return np.asarray(np.memmap(shard.path, dtype=np.uint8, mode="r"))


def _header(arrays: Mapping[str, Tensor], metadata: Mapping[str, str]) -> memoryview:
    entries: dict[str, Any] = {
        "__metadata__": {
            "format": FORMAT,
            "version": str(VERSION),
            **{k: str(v) for k, v in metadata.items()},
        }
    }
    position = 0
    for name, array in arrays.items():
        stop = position + array.nbytes
        entries[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [position, stop],
        }
        position = stop
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % 4096)
    return memoryview(struct.pack("<Q", len(text)) + text)


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    damaged = (
        f"{path} was cut or altered: its header cannot be read; remove {path.parent.parent} and run again"
    )
    try:
        with path.open("rb") as handle:
            (length,) = struct.unpack("<Q", handle.read(8))
            if length > 100_000_000:
                raise ValueError(damaged)
            return json.loads(handle.read(length)), 8 + length
    except FileNotFoundError:
        raise ValueError(
            f"{path} is missing; remove {path.parent.parent} and run the same command again"
        ) from None
    except (struct.error, UnicodeDecodeError, json.JSONDecodeError):
        raise ValueError(damaged) from None


def _bytes_of(array: Tensor) -> memoryview:
    if array.numel() == 0:
        return memoryview(b"")
    return memoryview(array.reshape(-1).view(torch.uint8).numpy().data)


def _write_all(handle: Any, part: memoryview) -> None:
    for start in range(0, len(part), _CHUNK):
        piece = part[start : start + _CHUNK]
        while len(piece):
            piece = piece[handle.write(piece) :]


def _sha256(parts: list[memoryview]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        for start in range(0, len(part), _CHUNK):
            digest.update(part[start : start + _CHUNK])
    return digest.hexdigest()


_WORDS = ((8, torch.int64), (4, torch.int32), (2, torch.int16), (1, torch.uint8))


def row_check(
    x: Shaped[Tensor, "row d_model"], scale: Float[Tensor, " row"] | None = None
) -> Int[Tensor, " row"]:
    """Sum of a row's bytes as words of up to 8 bytes, modulo 2^64; every flipped bit changes it.

    The float32 `scale` of an int8 row is one more word. numpy sums, because torch would start a team of
    threads for every reading thread.
    """
    row_bytes = x.shape[1] * x.itemsize
    word = next(dtype for size, dtype in _WORDS if row_bytes % size == 0)
    total = torch.from_numpy(x.contiguous().view(word).numpy().sum(axis=1, dtype=np.int64))
    return total if scale is None else total + scale.contiguous().view(torch.int32)


def refuse_altered(
    x: Shaped[Tensor, "row d_model"],
    *,
    scale: Float[Tensor, " row"] | None,
    check: Int[Tensor, " row"],
    path: Path,
    first: int = 0,
) -> None:
    """ValueError where a row read from `path` is not as written; row 0 of `x` is row `first`."""
    bad = (row_check(x, scale) != check).nonzero().flatten()
    if len(bad):
        raise ValueError(
            f"{path} was altered: {len(bad):,} rows differ from their check sums, the first of them "
            f"row {first + int(bad[0]):,}; remove {path.parent.parent} and run the same command again"
        )
