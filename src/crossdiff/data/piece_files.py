"""Reading stretches of shard files one after the other, with the kernel told of them beforehand."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from crossdiff.data.shard_files import ShardFile

AHEAD = 32
"""Pieces that the kernel is told of before they are read."""

Piece = tuple[ShardFile, int, int]
"""Rows (first, last) of one shard."""


class PieceFiles:
    """Open shard files of some pieces, of which the tensors `names` are read."""

    def __init__(self, pieces: Sequence[Piece], names: Sequence[str]) -> None:
        self.pieces = pieces
        self.names = names
        self.descriptors: dict[Path, int] = {}

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
            shard, first, last = self.pieces[index]
            for name in self.names:
                offset, row_bytes = _place(shard, name, first)
                length = (last - first) * row_bytes
                os.posix_fadvise(self._open(shard), offset, length, os.POSIX_FADV_WILLNEED)

    def read(self, shard: ShardFile, name: str, first: int, target: Tensor) -> None:
        """Fill `target`, contiguous, with rows from `first` on; a file that ends early is refused."""
        view = memoryview(target.view(torch.uint8).numpy().data).cast("B")
        offset, _ = _place(shard, name, first)
        while len(view):
            n_read = os.preadv(self._open(shard), [view], offset)
            if n_read == 0:
                raise ValueError(f"{shard.path} ends early; remove {shard.path.parent.parent} and run again")
            view, offset = view[n_read:], offset + n_read

    def _open(self, shard: ShardFile) -> int:
        if shard.path not in self.descriptors:
            self.descriptors[shard.path] = os.open(shard.path, os.O_RDONLY)
        return self.descriptors[shard.path]


def _place(shard: ShardFile, name: str, row: int) -> tuple[int, int]:
    """Where a row of a tensor begins in its file, and how many bytes a row has."""
    row_bytes = math.prod(shard.shape(name)[1:]) * shard.dtype(name).itemsize
    return shard.byte_offset(name) + row * row_bytes, row_bytes
