"""A crosscoder in several safetensors files, each with the rows of one block of latents, and their index.

`index.json` names the files in the order of their blocks and says what the crosscoder is. A file that is
written anew has a new name and the index is replaced last, so that an index always names complete files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from crossdiff.core.checkpoint import INDEX, Content
from crossdiff.core.dictionary import DictionarySettings

FORMAT, VERSION = "crossdiff.crosscoder_shards", 1
OF_LATENTS = ("encoder", "encoder_bias", "decoder")
"""Tensors with a row per latent; the others are the same in all files."""
NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16",
    torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
"""What safetensors calls the types of numbers."""
WAY_OUT = "restore the folder from where it was copied, or train again"


def write_block(path: Path, tensors: Mapping[str, Tensor], *, state: str = "") -> None:
    """Write a safetensors file down to the disk, tensor by tensor; no second copy of them is held.

    `state` is a text that travels in the file's metadata.
    """
    header: dict[str, Any] = {"__metadata__": {"state": state}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": [*tensor.shape], "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as handle:
        handle.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            flat = tensor.detach().cpu().contiguous().flatten()
            handle.write(flat.view(torch.uint8).numpy().data)
        handle.flush()
        os.fsync(handle.fileno())


def write_index(
    folder: Path,
    files: Iterable[str],
    *,
    dictionary: DictionarySettings,
    n_models: int,
    d_model: int,
    prefix: str = "",
    about: Mapping[str, Any] | None = None,
) -> None:
    """Replace the index; `prefix` stands before the names of the crosscoder's tensors."""
    index = {
        "format": FORMAT,
        "version": VERSION,
        "files": list(files),
        "dictionary": dictionary.model_dump(),
        "n_models": n_models,
        "d_model": d_model,
        "prefix": prefix,
        "about": dict(about or {}),
    }
    aside = folder / f".{INDEX}.part"
    with aside.open("w", encoding="utf-8") as handle:
        handle.write(json.dumps(index, indent=1, allow_nan=False) + "\n")
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(aside, folder / INDEX)


def read_index(folder: Path, *, way_out: str = WAY_OUT) -> dict[str, Any]:
    """The index of a folder, all of whose files are there and whole; ValueError names what is wrong."""
    path = folder / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        if index["format"] != FORMAT or index["version"] != VERSION:
            raise ValueError(f"format {index['format']!r}, version {index['version']!r}")
        names = [str(name) for name in index["files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is cut, or no index of shards ({error}); {way_out}") from None
    for name in names:
        if Path(name).name != name:
            raise ValueError(f"{path} names {name!r}, which is no file beside it; {way_out}")
        try:
            with safe_open(folder / name, "pt"):
                pass
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{folder / name} is missing, cut or altered ({error}); {way_out}") from None
    return index


def read_state(file: Path) -> str:
    """The text that travels in a file."""
    with safe_open(file, "pt") as handle:
        return (handle.metadata() or {}).get("state", "")


def read_rows(files: Iterable[Path], name: str, rows: slice) -> Tensor:
    """Rows `start:stop` of a tensor whose blocks of rows lie in `files`; only what is asked for is read."""
    found, first = [], 0
    for file in files:
        with safe_open(file, "pt") as handle:
            block = handle.get_slice(name)
            n = block.get_shape()[0]
            start, stop = max(rows.start - first, 0), min(rows.stop - first, n)
            if start < stop:
                found.append(block[start:stop])
        first += n
    return found[0] if len(found) == 1 else torch.cat(found)


def read(folder: str | Path) -> Content:
    """The whole crosscoder, put together from all files; ValueError where that cannot be done."""
    folder = Path(folder)
    index = read_index(folder)
    files, prefix = [folder / name for name in index["files"]], index["prefix"]
    try:
        dictionary = DictionarySettings(**index["dictionary"])
        everything = slice(0, dictionary.n_latents)
        with safe_open(files[0], "pt") as handle:
            names = [name.removeprefix(prefix) for name in handle.keys() if name.startswith(prefix)]  # noqa: SIM118
            tensors = {name: handle.get_tensor(prefix + name) for name in names if name not in OF_LATENTS}
        tensors |= {name: read_rows(files, prefix + name, everything) for name in OF_LATENTS}
    except (SafetensorError, ValidationError, IndexError) as error:
        raise ValueError(f"{folder} is no readable crosscoder: {error}; {WAY_OUT}") from None
    shape = (dictionary.n_latents, index["n_models"], index["d_model"])
    if tensors["encoder"].shape != shape or tensors["decoder"].shape != shape:
        raise ValueError(f"{folder}: its files hold other sizes than {INDEX} says; {WAY_OUT}")
    return Content(dictionary, index["n_models"], index["d_model"], tensors, {})
