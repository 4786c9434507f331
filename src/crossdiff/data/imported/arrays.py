"""Arrays of other tools: .npy, .safetensors, .pt, and the shard folders of crosscoder_learning.

Opening reads headers only; rows are read a stretch at a time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

READABLE = ".npy, .safetensors, .pt, or a folder of crosscoder_learning (config.json, shard_0.memmap, ...)"
SHARDS = "config.json"
_SAFETENSORS = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "U8": torch.uint8, "I8": torch.int8,
}  # fmt: skip


@dataclass(frozen=True)
class StoredArray:
    """An array on disk with rows as first axis; `read(start, stop)` returns rows as a tensor of `dtype`."""

    path: Path
    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[int, int], Shaped[Tensor, "row ..."]]

    @property
    def n_rows(self) -> int:
        """Length of the first axis."""
        return self.shape[0]

    def whole(self) -> Shaped[Tensor, "row ..."]:
        """All rows, in memory."""
        return self.read(0, self.n_rows)


def array_files(text: str) -> list[Path]:
    """The files of an array, in order; ValueError for a path without one."""
    path = Path(text).expanduser()
    if path.is_dir():
        return [path / SHARDS, *(file for shard in _shards(path) for file in shard)]
    if not path.is_file():
        raise ValueError(f"{text} does not exist; give {READABLE}")
    return [path]


def open_array(text: str, *, names: Sequence[str]) -> StoredArray:
    """Open an array; in a file with several tensors, the one named in `names`."""
    path = Path(text).expanduser()
    array_files(text)
    if path.is_dir():
        return _open_shards(path)
    match path.suffix:
        case ".npy":
            return _open_npy(path)
        case ".safetensors":
            return _open_safetensors(path, names)
        case ".pt":
            return _open_pt(path)
    raise ValueError(f"{text} is {path.suffix or 'without a suffix'}; activations are read from {READABLE}")


def _open_npy(path: Path) -> StoredArray:
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(
            f"{path} is no whole .npy file of numbers ({error}); save it again with numpy.save"
        ) from None
    if mapped.ndim == 0:
        raise ValueError(f"{path} has one number and no rows; save an array")
    return StoredArray(path, mapped.shape, _numpy_dtype(mapped.dtype, path), _reader(mapped))


def _numpy_dtype(dtype: np.dtype, path: Path) -> torch.dtype:
    try:
        return torch.from_numpy(np.empty(0, dtype)).dtype
    except (TypeError, ValueError):
        raise ValueError(
            f"{path} has numbers of type {dtype}, which torch does not read; save float32 or float16 "
            "(bfloat16 as .safetensors)"
        ) from None


def _reader(mapped: np.ndarray, view: torch.dtype | None = None) -> Callable[[int, int], Tensor]:
    def read(start: int, stop: int) -> Tensor:
        rows = torch.from_numpy(np.array(mapped[start:stop]))
        return rows if view is None else rows.view(view)

    return read


def _open_safetensors(path: Path, names: Sequence[str]) -> StoredArray:
    from safetensors import SafetensorError, safe_open

    try:
        handle = safe_open(path, "pt")
        tensors = list(handle.keys())
        name = tensors[0] if len(tensors) == 1 else next((name for name in names if name in tensors), None)
        if name is None:
            raise ValueError(
                f"{path} has the tensors {', '.join(sorted(tensors)) or '(none)'}; save one tensor in it, or "
                f"name it {' or '.join(names)}"
            )
        part = handle.get_slice(name)
        shape, dtype = tuple(part.get_shape()), _SAFETENSORS.get(part.get_dtype())
    except SafetensorError as error:
        raise ValueError(
            f"{path} is no whole .safetensors file ({error}); save it again (pickles are not read)"
        ) from None
    if dtype is None or not shape:
        raise ValueError(f"{path} has {name} ({part.get_dtype()}, {shape}); save rows of floats")
    return StoredArray(path, shape, dtype, lambda start, stop: part[start:stop])


def _open_pt(path: Path) -> StoredArray:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # noqa: BLE001  a pickle with code, a truncated file, an old format
        raise ValueError(
            f"{path} cannot be read without running code ({type(error).__name__}); save one tensor with "
            "torch.save, or .npy or .safetensors"
        ) from None
    if not isinstance(loaded, Tensor) or not loaded.dim():
        raise ValueError(f"{path} has {type(loaded).__name__}; save one tensor of rows")
    return StoredArray(
        path, tuple(loaded.shape), loaded.dtype, lambda start, stop: loaded[start:stop].clone()
    )


def _shards(folder: Path) -> list[tuple[Path, Path]]:
    """(data, description) of every shard that config.json counts; ValueError where one is missing."""
    config = _json(folder / SHARDS)
    count = config.get("shard_count")
    if not isinstance(count, int) or count < 1:
        inside = ", ".join(sorted(child.name for child in folder.iterdir())[:8]) or "nothing"
        raise ValueError(f"{folder} has {inside} and no shard_count in config.json; give a file")
    if config.get("shuffle_shards"):
        raise ValueError(
            f"{folder} was stored with shuffle_shards, so row i is another token in every model; store the "
            "activations again without it"
        )
    if config.get("io", "out") != "out":
        raise ValueError(
            f"{folder} has the input of its module (io={config['io']}), and a layer here is a block's "
            "output; store io=out, or the output of the block before"
        )
    shards = [(folder / f"shard_{n}.memmap", folder / f"shard_{n}.meta") for n in range(count)]
    for path in (path for shard in shards for path in shard):
        if not path.is_file():
            raise ValueError(f"{path} is missing, and {SHARDS} counts {count} shards; copy the whole folder")
    return shards


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no readable JSON ({error}); copy the file again") from None
    return content if isinstance(content, dict) else {}


def _open_shards(folder: Path) -> StoredArray:
    """The shards one after another, in the row order of crosscoder_learning's `ActivationCache`."""
    parts = [_open_shard(data, meta) for data, meta in _shards(folder)]
    kinds = {(part.shape[1:], part.dtype) for part in parts}
    if len(kinds) > 1:
        listed = ", ".join(f"{part.path.name} {list(part.shape)} {part.dtype}" for part in parts[:4])
        raise ValueError(
            f"the shards of {folder} differ in width or type ({listed}); give those of one harvest"
        )
    firsts = np.cumsum([0, *(part.n_rows for part in parts)]).tolist()

    def read(start: int, stop: int) -> Tensor:
        stretches = [
            part.read(max(start - first, 0), min(stop, last) - first)
            for part, (first, last) in zip(parts, pairwise(firsts), strict=True)
            if start < last and stop > first
        ]
        return torch.cat(stretches) if stretches else parts[0].read(0, 0)

    return StoredArray(folder, (firsts[-1], *parts[0].shape[1:]), parts[0].dtype, read)


def _open_shard(data: Path, meta: Path) -> StoredArray:
    described = _json(meta)
    shape, name = described.get("shape"), str(described.get("dtype", "torch.float32"))
    dtype = getattr(torch, name.removeprefix("torch."), None)
    if not isinstance(shape, list) or not all(isinstance(n, int) and n >= 0 for n in shape) or not shape:
        raise ValueError(f"{meta} has no shape of its shard; copy the file again")
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{meta} names the type {name}, unknown to torch; store float32 or bfloat16")
    n_bytes = math.prod(shape) * dtype.itemsize
    if data.stat().st_size != n_bytes:
        raise ValueError(
            f"{data} has {data.stat().st_size:,} bytes, and {meta.name} says {n_bytes:,} ({shape}, {name}); "
            "it is incomplete: copy it again"
        )
    raw = torch.int16 if dtype == torch.bfloat16 else dtype
    stored = np.dtype(str(raw).removeprefix("torch."))
    mapped = np.empty(shape, stored)
    if n_bytes:
        mapped = np.memmap(data, dtype=stored, mode="r", shape=tuple(shape))
    return StoredArray(data, tuple(shape), dtype, _reader(mapped, dtype if raw != dtype else None))
