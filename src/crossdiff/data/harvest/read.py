"""One layer of one model's finished harvest: rows in token order, spread over shard files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from crossdiff.data.harvest.stretches import Piece, read_pieces
from crossdiff.data.moments import Moments
from crossdiff.data.row_check import refuse_altered
from crossdiff.data.shard_files import ShardFile
from crossdiff.io.tables import read_json

FORMAT = "crossdiff.harvest"
VERSION = 2
RECORD = "harvest.json"


@dataclass(frozen=True)
class HarvestedLayer:
    """Activations [row, d_model] of one model at one layer, in the storage dtype of the harvest."""

    folder: Path
    layer: int
    token_hash: str
    shards: tuple[ShardFile, ...]

    @classmethod
    def open(cls, folder: Path, layer: int, record: dict[str, Any]) -> HarvestedLayer:
        """Open a finished harvest by its record; every shard's header and size are checked."""
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
        """Storage dtype; int8 rows carry a scale each."""
        return self.shards[0].dtype("x")

    @cached_property
    def starts(self) -> np.ndarray:
        """First row of every shard, and the number of rows at the end."""
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
        found = torch.empty(len(rows), self.d_model)
        shard_of = torch.from_numpy(np.searchsorted(self.starts, rows.numpy(), side="right") - 1)
        for index in shard_of.unique().tolist():
            here = shard_of == index
            found[here] = decoded(self.shards[index], rows[here] - int(self.starts[index]))
        return found

    def read_spans(
        self, spans: Sequence[tuple[int, int]], buffer: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Rows of spans, read by a few threads without the memory map, and int8 scales if any."""
        pieces = self._pieces(spans)
        out = _room(sum(piece.n_rows for piece in pieces), self.d_model, self.dtype, buffer)
        scale = torch.empty(len(out)) if self.dtype == torch.int8 else None
        read_pieces(pieces, out, scale)
        return out, scale

    def _pieces(self, spans: Sequence[tuple[int, int]]) -> list[Piece]:
        """Spans of rows, cut where shards end."""
        pieces, place = [], 0
        for start, stop in spans:
            inner = self.starts[(self.starts > start) & (self.starts < stop)].tolist()
            for first, last in pairwise([start, *inner, stop]):
                index = int(np.searchsorted(self.starts, first, side="right") - 1)
                shard, offset = self.shards[index], int(self.starts[index])
                pieces.append(Piece(shard, first - offset, last - offset, place))
                place += last - first
        return pieces


def read_record(folder: Path, layer: int) -> dict[str, Any]:
    """harvest.json of a finished harvest of `layer`; another format or version is refused."""
    path = folder / f"layer_{layer}" / RECORD
    if not path.is_file():
        others = sorted(int(p.parent.name.removeprefix("layer_")) for p in folder.glob(f"layer_*/{RECORD}"))
        raise ValueError(
            f"layer={layer} is not in {folder}, which holds layers {others}; "
            "harvest that layer (run with layer=...)"
        )
    record = read_json(path)
    if record.get("format") != FORMAT or record.get("version") != VERSION:
        raise ValueError(
            f"{path} is {record.get('format')!r} version {record.get('version')!r}, this crossdiff reads "
            f"{FORMAT!r} version {VERSION}; run the harvest step again"
        )
    return record


def decoded(shard: ShardFile, rows: Int[Tensor, " row"]) -> Float[Tensor, "row d_model"]:
    """Float32 rows of one shard, with the scale of an int8 shard applied."""
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
    """The first rows of `buffer` where it is long enough, else new memory with a little to spare.

    New memory is numpy's, which asks for huge pages: small ones take 0.3 s more to clear for 1 GB.
    """
    if buffer is None or len(_whole(buffer, d_model)) < n_rows:
        memory = np.empty((n_rows + n_rows // 16 + 1, d_model * dtype.itemsize), np.uint8)
        buffer = torch.from_numpy(memory).view(dtype)
    return _whole(buffer, d_model)[:n_rows]


def _whole(buffer: Tensor, d_model: int) -> Tensor:
    """The memory behind a view that was cut short."""
    n_rows = buffer.untyped_storage().nbytes() // (buffer.itemsize * d_model)
    return buffer.as_strided((n_rows, d_model), (d_model, 1), 0)
