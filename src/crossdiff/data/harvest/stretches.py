"""Reading stretches of shard files into a window; the kernel is asked to read ahead."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from crossdiff.data.row_check import refuse_altered
from crossdiff.data.shard_files import ShardFile, read_into

AHEAD = 32
"""How many pieces ahead of the reader the kernel is asked to read."""
N_READERS = 2
"""Threads that read; one alone copies and checks about as fast as one disk delivers."""


@dataclass(frozen=True)
class Piece:
    """Rows `first` up to `last` of one shard; the window holds them from row `place` on."""

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
    """Fill a window, and the int8 scales of its rows where there are any; altered rows are refused.

    Readers take turns, so that all of them together go through the files from front to back.
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
    """Shard files of some pieces, open from announcement to last use; the tensors `names` are read."""

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
        """Let the kernel begin to read piece `index`."""
        if index < len(self.pieces):
            piece = self.pieces[index]
            for name in self.names:
                offset, row_bytes = _place(piece, name)
                length = piece.n_rows * row_bytes
                os.posix_fadvise(self._open(piece.shard), offset, length, os.POSIX_FADV_WILLNEED)

    def read(self, piece: Piece, name: str, target: Tensor) -> None:
        """Fill `target`, contiguous, with a piece of tensor `name`; a file that ends early is refused."""
        read_into(self._open(piece.shard), target, _place(piece, name)[0], piece.shard.path)

    def finish(self, index: int) -> None:
        """Close the file of piece `index` where no later piece is in it."""
        path = self.pieces[index].shard.path
        if self.last_use[path] == index and path in self.descriptors:
            os.close(self.descriptors.pop(path))

    def _open(self, shard: ShardFile) -> int:
        if shard.path not in self.descriptors:
            self.descriptors[shard.path] = os.open(shard.path, os.O_RDONLY)
        return self.descriptors[shard.path]


def _place(piece: Piece, name: str) -> tuple[int, int]:
    """Where a piece of a tensor begins in its file, and how many bytes a row has."""
    row_bytes = math.prod(piece.shard.shape(name)[1:]) * piece.shard.dtype(name).itemsize
    return piece.shard.byte_offset(name) + piece.first * row_bytes, row_bytes
