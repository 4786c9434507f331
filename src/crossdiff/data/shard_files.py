"""Shard files: safetensors with activations of consecutive tokens, written once, read by memory map."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crossdiff.io.tables import errors_name

FORMAT = "crossdiff.shard"
VERSION = 2

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
    """Write tensors aside, fsync, rename; returns the file's sha256 (hashed while it is written).

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


@dataclass(frozen=True)
class ShardFile:
    """One opened shard: its header is checked against the file's size; tensors are memory-mapped views."""

    path: Path
    metadata: dict[str, str]
    entries: dict[str, dict[str, Any]]
    data_start: int

    @classmethod
    def open(cls, path: Path) -> ShardFile:
        """Read and check the header; a cut or foreign file is refused."""
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
        """Where the tensor's first byte lies in the file."""
        return self.data_start + self.entries[name]["data_offsets"][0]

    @cached_property
    def _map(self) -> np.memmap:
        return np.memmap(self.path, dtype=np.uint8, mode="c")

    def tensor(self, name: str) -> Tensor:
        """A memory-mapped view; only the pages that are touched are read."""
        start, stop = (self.data_start + offset for offset in self.entries[name]["data_offsets"])
        flat = torch.from_numpy(self._map[start:stop])
        return flat.view(self.dtype(name)).reshape(self.shape(name))


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
