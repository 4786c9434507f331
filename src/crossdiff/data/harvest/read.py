"""One layer of a finished harvest: rows in token order over shard files.

Windows are read stretch by stretch, and the kernel is asked to read ahead.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from crossdiff.data.moments import Moments
from crossdiff.data.shard_files import ShardFile, read_into, refuse_altered

AHEAD = 32
"""Pieces ahead of the reader that the kernel is asked to read."""
N_READERS = 2
"""Threads that read; one copies and checks about as fast as a disk delivers."""


@dataclass(frozen=True)
class Piece:
    """Rows `first` up to `last` of one shard, at rows from `place` on of the window."""

    shard: ShardFile
    first: int
    last: int
    place: int

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return self.last - self.first


def read_pieces(
    pieces: Sequence[Piece], x: Shaped[Tensor, "row d_model"], scale: Float[Tensor, " row"] | None
) -> None:
    """Fill a window, and its rows' int8 scales if any; ValueError for altered rows.

    Readers take turns, so that together they go through the files from front to back.
    """
    with ThreadPoolExecutor(N_READERS, thread_name_prefix="reader") as pool:
        turns = [pool.submit(_read, pieces[turn::N_READERS], x, scale) for turn in range(N_READERS)]
        for turn in turns:
            turn.result()


def _read(pieces: Sequence[Piece], x: Tensor, scale: Tensor | None) -> None:
    names = ("x", "check") if scale is None else ("x", "check", "scale")
    with PieceFiles(pieces, names) as files:
        for index, piece in enumerate(pieces):
            files.announce(index + AHEAD)
            rows = x[piece.place : piece.place + piece.n_rows]
            check = torch.empty(piece.n_rows, dtype=torch.int64)
            files.read(piece, "x", rows)
            files.read(piece, "check", check)
            scales = None
            if scale is not None:
                scales = scale[piece.place : piece.place + piece.n_rows]
                files.read(piece, "scale", scales)
            refuse_altered(rows, scale=scales, check=check, path=piece.shard.path, first=piece.first)
            files.finish(index)


class PieceFiles:
    """Shard files of some pieces, open from `announce` to last use; the tensors `names` are read."""

    def __init__(self, pieces: Sequence[Piece], names: Sequence[str]) -> None:
        self.pieces = pieces
        self.names = names
        self.descriptors: dict[Path, int] = {}
        self.last_use = {piece.shard.path: index for index, piece in enumerate(pieces)}

    def __enter__(self) -> PieceFiles:
        for index in range(min(AHEAD, len(self.pieces))):
            self.announce(index)
        return self

    def __exit__(self, *_error: object) -> None:
        for descriptor in self.descriptors.values():
            os.close(descriptor)

    def announce(self, index: int) -> None:
        """Ask the kernel to read piece `index` ahead."""
        if index < len(self.pieces):
            piece = self.pieces[index]
            for name in self.names:
                offset, row_bytes = _place(piece, name)
                length = piece.n_rows * row_bytes
                os.posix_fadvise(self._open(piece.shard), offset, length, os.POSIX_FADV_WILLNEED)

    def read(self, piece: Piece, name: str, target: Tensor) -> None:
        """Fill a contiguous `target` with a piece of tensor `name`; ValueError where the file ends early."""
        read_into(self._open(piece.shard), target, _place(piece, name)[0], piece.shard.path)

    def finish(self, index: int) -> None:
        """Close the file of piece `index` after its last piece."""
        path = self.pieces[index].shard.path
        if self.last_use[path] == index and path in self.descriptors:
            os.close(self.descriptors.pop(path))

    def _open(self, shard: ShardFile) -> int:
        if shard.path not in self.descriptors:
            self.descriptors[shard.path] = os.open(shard.path, os.O_RDONLY)
        return self.descriptors[shard.path]


def _place(piece: Piece, name: str) -> tuple[int, int]:
    """Offset of a piece of a tensor in its file, and the bytes of a row."""
    row_bytes = math.prod(piece.shard.shape(name)[1:]) * piece.shard.dtype(name).itemsize
    return piece.shard.byte_offset(name) + piece.first * row_bytes, row_bytes


@dataclass(frozen=True)
class HarvestedLayer:
    """Activations [row, d_model] of one model at one layer, in the storage dtype of the harvest."""

    folder: Path
    layer: int
    token_hash: str
    shards: tuple[ShardFile, ...]

    @classmethod
    def open(cls, folder: Path, layer: int, record: dict[str, Any]) -> HarvestedLayer:
        """Open a finished harvest by its record; ValueError where a shard does not fit it."""
        shards = tuple(
            ShardFile.open(folder / f"layer_{layer}" / shard["file"]) for shard in record["shards"]
        )
        for shard, expected in zip(shards, record["shards"], strict=True):
            _check_shard(shard, expected, record["token_hash"])
        return cls(folder, layer, record["token_hash"], shards)

    @property
    def d_model(self) -> int:
        """Width of a row."""
        return self.shards[0].shape("x")[1]

    @property
    def dtype(self) -> torch.dtype:
        """Storage dtype; every int8 row has a scale."""
        return self.shards[0].dtype("x")

    @cached_property
    def starts(self) -> np.ndarray:
        """First row of every shard, then the number of rows."""
        return np.cumsum([0, *(shard.shape("x")[0] for shard in self.shards)])

    @property
    def n_rows(self) -> int:
        """Rows over all shards."""
        return int(self.starts[-1])

    def place(self, row: int) -> str:
        """Shard file and row inside it, for messages."""
        index = int(np.searchsorted(self.starts, row, side="right") - 1)
        return f"{self.shards[index].path} row {row - int(self.starts[index])}"

    def norms(self) -> Float[Tensor, " row"]:
        """Euclidean norm of every row, raw units, float32."""
        return torch.cat([shard.tensor("norm") for shard in self.shards])

    def moments(self) -> Moments:
        """Float64 moments of the stored values, merged over shards."""
        total = Moments.zeros(self.d_model)
        for shard in self.shards:
            total = total.merge(Moments.from_tensors(shard.tensors(Moments.NAMES)))
        return total

    def rows(self, rows: Int[Tensor, " row"]) -> Float[Tensor, "row d_model"]:
        """Float32 activations of arbitrary rows, in the order given, gathered from memory maps."""
        x = torch.empty(len(rows), self.d_model)
        shard_of = torch.from_numpy(np.searchsorted(self.starts, rows.numpy(), side="right") - 1)
        for index in shard_of.unique().tolist():
            here = shard_of == index
            x[here] = decoded(self.shards[index], rows[here] - int(self.starts[index]))
        return x

    def read_spans(
        self, spans: Sequence[tuple[int, int]], buffer: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Rows of spans as stored, read by `N_READERS` threads, and their int8 scales if any."""
        pieces = self._pieces(spans)
        out = _room(sum(piece.n_rows for piece in pieces), self.d_model, self.dtype, buffer)
        scale = torch.empty(len(out)) if self.dtype == torch.int8 else None
        read_pieces(pieces, out, scale)
        return out, scale

    def _pieces(self, spans: Sequence[tuple[int, int]]) -> list[Piece]:
        """Spans of rows, cut at the ends of shards."""
        pieces, place = [], 0
        for start, stop in spans:
            inner = self.starts[(self.starts > start) & (self.starts < stop)].tolist()
            for first, last in pairwise([start, *inner, stop]):
                index = int(np.searchsorted(self.starts, first, side="right") - 1)
                shard, offset = self.shards[index], int(self.starts[index])
                pieces.append(Piece(shard, first - offset, last - offset, place))
                place += last - first
        return pieces


def decoded(shard: ShardFile, rows: Int[Tensor, " row"]) -> Float[Tensor, "row d_model"]:
    """Float32 rows of one shard, scaled where it is int8."""
    x = shard.rows("x", rows)
    scale = shard.rows("scale", rows) if "scale" in shard.names else None
    refuse_altered(x, scale=scale, check=shard.rows("check", rows), path=shard.path)
    return x.float() if scale is None else x.float() * scale[:, None]


def _check_shard(shard: ShardFile, expected: dict[str, Any], token_hash: str) -> None:
    rows = shard.shape("x")[0]
    if rows != expected["n_rows"] or shard.metadata["token_hash"] != token_hash:
        raise ValueError(
            f"{shard.path} does not belong to its harvest ({rows:,} rows of tokens "
            f"{shard.metadata['token_hash'][:16]}, expected {expected['n_rows']:,} of {token_hash[:16]}); "
            f"remove {shard.path.parent.parent} and run the same command again"
        )


def _room(n_rows: int, d_model: int, dtype: torch.dtype, buffer: Tensor | None) -> Tensor:
    """The first rows of `buffer` where it is long enough, else new memory.

    New memory is numpy's, which asks for huge pages: small ones take 0.3 s more per GB to clear.
    """
    if buffer is None or len(_whole(buffer, d_model)) < n_rows:
        memory = np.empty((n_rows + n_rows // 16 + 1, d_model * dtype.itemsize), np.uint8)
        buffer = torch.from_numpy(memory).view(dtype)
    return _whole(buffer, d_model)[:n_rows]


def _whole(buffer: Tensor, d_model: int) -> Tensor:
    """All rows of the memory behind a view."""
    n_rows = buffer.untyped_storage().nbytes() // (buffer.itemsize * d_model)
    return buffer.as_strided((n_rows, d_model), (d_model, 1), 0)
