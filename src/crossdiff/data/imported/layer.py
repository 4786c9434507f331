"""One model's imported activations, checked and copied into the shards of a harvest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crossdiff.data.harvest.write import (
    DTYPES,
    Storage,
    corpus_shards,
    layer_tensors,
    write_layer,
    write_record,
)
from crossdiff.data.imported.arrays import StoredArray, open_array
from crossdiff.data.tokens import TokenSet
from crossdiff.io.progress import bar

NAMES = ("activations", "x")
SHARD_ROWS = 131_072
STORAGES: dict[torch.dtype, Storage] = {
    **{dtype: name for name, dtype in DTYPES.items() if name != "int8"},  # type: ignore[misc]
    torch.float64: "float32",
}


def open_activations_of(model: str, text: str) -> StoredArray:
    """Rows `[token, d_model]` of floats; ValueError for another shape or type."""
    array = open_array(text, names=NAMES)
    where = f"source.activations of {model} ({text})"
    if len(array.shape) != 2 or not all(array.shape):
        raise ValueError(
            f"{where} has shape {list(array.shape)}; it needs rows [token, d_model] without padding, one "
            "file per model (several documents: one after another, with source.offsets)"
        )
    if array.dtype not in STORAGES:
        raise ValueError(
            f"{where} has {str(array.dtype).removeprefix('torch.')}; activations are float32, bfloat16, "
            "float16 or float64"
        )
    return array


def copy_layer(
    model: str, text: str, token_set: TokenSet, folder: Path, *, layer: int, progress: bool
) -> dict[str, Any]:
    """Write `layer_<L>/` of `folder` as a harvest would; returns its figures. ValueError for NaN rows."""
    array = open_activations_of(model, text)
    storage, shards = STORAGES[array.dtype], corpus_shards(token_set, shard_tokens=SHARD_ROWS)
    notices = [] if array.dtype != torch.float64 else [f"{text}: float64 is stored as float32"]
    hashes = {}
    with bar(total=array.n_rows, description=f"import {model}", unit="tok", enabled=progress) as shown:
        for shard in shards:
            rows = array.read(shard.first_row, shard.first_row + shard.n_rows)
            _refuse_not_finite(rows, shard.first_row, f"source.activations of {model} ({text})")
            tensors = layer_tensors(rows, shard, token_set, storage=storage)
            _refuse_not_finite(tensors["norm"][:, None], shard.first_row, f"{text} as {storage}")
            hashes[f"layer_{layer}/{shard.file}"] = write_layer(folder, layer, shard, tensors, token_set)
            shown.update(shard.n_rows)
    details = {"imported": str(text), "storage": storage, "notices": notices}
    write_record(folder, token_set, layers=[layer], shards=shards, hashes=hashes, details=details)
    return {
        "imported": array.path.suffix.removeprefix(".") or "shards",
        "n_tokens": array.n_rows,
        "d_model": array.shape[1],
        "n_shards": len(shards),
        "storage": storage,
        "notices": notices,
    }


def _refuse_not_finite(rows: Tensor, first: int, where: str) -> None:
    wrong = (~rows.isfinite().all(dim=1)).nonzero().flatten()
    if len(wrong):
        raise ValueError(
            f"{where} has NaN or infinite values in {len(wrong):,} of rows {first:,} to "
            f"{first + len(rows) - 1:,}, first in row {first + int(wrong[0]):,}; leave these tokens out of "
            "all models' files (and of ids and offsets), or harvest them again"
        )
