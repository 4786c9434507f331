"""Writing a harvest: a file per corpus shard and layer, then a record per layer, which is read here too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from crossdiff.data.moments import CHUNK, Moments, row_groups
from crossdiff.data.shard_files import row_check, write_shard
from crossdiff.data.tokens import TokenSet
from crossdiff.io.tables import read_versioned_json, write_json

FORMAT = "crossdiff.harvest"
VERSION = 2
RECORD = "harvest.json"
Storage = Literal["float32", "bfloat16", "float16", "int8"]
DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.int8,
}


@dataclass(frozen=True)
class CorpusShard:
    """Consecutive documents: the unit of resuming and parallel work."""

    index: int
    first_document: int
    last_document: int
    """One past the last."""
    first_row: int
    n_rows: int

    @property
    def file(self) -> str:
        """File name of this shard in every layer's folder."""
        return f"shard_{self.index:05d}.safetensors"

    def as_record(self) -> dict[str, Any]:
        """Entry of harvest.json."""
        return {"file": self.file, **asdict(self)}


def corpus_shards(token_set: TokenSet, *, shard_tokens: int) -> list[CorpusShard]:
    """Shards of whole documents with at least `shard_tokens` tokens each (but the last)."""
    offsets = token_set.offsets.tolist()
    shards: list[CorpusShard] = []
    first = 0
    for document in range(token_set.n_documents):
        n_rows = offsets[document + 1] - offsets[first]
        if n_rows >= shard_tokens or document + 1 == token_set.n_documents:
            shards.append(CorpusShard(len(shards), first, document + 1, offsets[first], n_rows))
            first = document + 1
    return shards


def layer_tensors(
    x: Shaped[Tensor, "row d_model"], shard: CorpusShard, token_set: TokenSet, *, storage: Storage
) -> dict[str, Tensor]:
    """Tensors of a shard file: rows as stored, their check sums and norms, moments of the stored values.

    Computed a few rows at a time, so that only the stored rows have the size of a shard.
    """
    span = slice(shard.first_row, shard.first_row + shard.n_rows)
    groups = row_groups(token_set.kind[span], token_set.held_out[span])
    moments = Moments.zeros(x.shape[1])
    columns = {"check": torch.empty(len(x), dtype=torch.int64), "norm": torch.empty(len(x))}
    if storage == "int8":
        columns["scale"] = torch.empty(len(x))
    narrowed = None if x.dtype == DTYPES[storage] else torch.empty(x.shape, dtype=DTYPES[storage])
    for start in range(0, len(x), CHUNK):
        here = slice(start, start + CHUNK)
        stored = quantised(x[here]) if storage == "int8" else {"x": x[here].to(DTYPES[storage])}
        rows, scale = stored.pop("x"), stored.get("scale")
        values = rows.float() if scale is None else rows.float() * scale[:, None]
        moments = moments.merge(Moments.of(values, groups[here]))
        for name, part in {"check": row_check(rows, scale), "norm": values.norm(dim=1), **stored}.items():
            columns[name][here] = part
        if narrowed is not None:
            narrowed[here] = rows
    return {**moments.tensors(), **columns, "x": x if narrowed is None else narrowed}


def quantised(x: Float[Tensor, "row d_model"]) -> dict[str, Tensor]:
    """Symmetric int8 with one float32 scale per row: x is about `x_int8 * scale`, error at most scale / 2."""
    scale = x.float().abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / 127
    return {"x": (x.float() / scale[:, None]).round().clamp(-127, 127).to(torch.int8), "scale": scale}


def write_layer(
    folder: Path, layer: int, shard: CorpusShard, tensors: Mapping[str, Tensor], token_set: TokenSet
) -> str:
    """Write one shard of one layer; returns its sha256."""
    target = folder / f"layer_{layer}"
    target.mkdir(parents=True, exist_ok=True)
    metadata = {
        "token_hash": token_set.token_hash,
        "layer": str(layer),
        "first_row": str(shard.first_row),
        "n_rows": str(shard.n_rows),
    }
    return write_shard(target / shard.file, tensors, metadata=metadata)


def write_record(
    folder: Path,
    token_set: TokenSet,
    *,
    layers: Sequence[int],
    shards: Sequence[CorpusShard],
    hashes: Mapping[str, str],
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write every layer's harvest.json, which marks this layer's folder as complete.

    `hashes` are sha256 by file name below `folder`.
    """
    for layer in layers:
        of_layer = {name: digest for name, digest in hashes.items() if name.startswith(f"layer_{layer}/")}
        record = {
            "format": FORMAT,
            "version": VERSION,
            "token_hash": token_set.token_hash,
            "n_rows": token_set.n_tokens,
            "layer": layer,
            "shards": [shard.as_record() for shard in shards],
            "sha256": of_layer,
            **(details or {}),
        }
        write_json(record, folder / f"layer_{layer}" / RECORD)


def write_harvest(
    folder: Path,
    token_set: TokenSet,
    activations: Mapping[int, Shaped[Tensor, "row d_model"]],
    *,
    storage: Storage = "float32",
    shard_tokens: int = 65_536,
) -> None:
    """Write activations in memory (layer -> rows in token order) as a finished harvest."""
    shards = corpus_shards(token_set, shard_tokens=shard_tokens)
    hashes = {}
    for layer, x in activations.items():
        for shard in shards:
            rows = x[shard.first_row : shard.first_row + shard.n_rows]
            tensors = layer_tensors(rows, shard, token_set, storage=storage)
            hashes[f"layer_{layer}/{shard.file}"] = write_layer(folder, layer, shard, tensors, token_set)
    write_record(folder, token_set, layers=list(activations), shards=shards, hashes=hashes)


def read_record(folder: Path, layer: int) -> dict[str, Any]:
    """harvest.json of a finished harvest of `layer`; ValueError for another format or version."""
    path = folder / f"layer_{layer}" / RECORD
    if not path.is_file():
        others = sorted(int(p.parent.name.removeprefix("layer_")) for p in folder.glob(f"layer_*/{RECORD}"))
        raise ValueError(
            f"layer={layer} is not in {folder}, which has layers {others}; "
            "harvest that layer (run with layer=...)"
        )
    return read_versioned_json(path, format=FORMAT, version=VERSION, way_out="run the harvest step again")
