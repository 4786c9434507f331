"""Names and shapes of a checkpoint's weights, from safetensors headers and indices; imports no torch."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HEADS = ("lm_head.", "embed_out.")
UNEMBEDDINGS = ("lm_head.weight", "embed_out.weight", "head.weight")
"""Endings of an unembedding's name; tied models have the embedding alone."""
IN_BLOCK = re.compile(r"\.\d+\.")
_BLOCK = re.compile(r"(?:^|\.)(?:layers|h|blocks|layer)\.(\d+)\.")


def is_tower(name: str) -> bool:
    """Whether a module or weight belongs to a tower other than the text's, by its name."""
    return any(word in name for word in ("vision", "visual", "audio", "image", "speech"))


def is_later(name: str, n_blocks: int) -> bool:
    """Whether a weight belongs to a decoder block from `n_blocks` on (not of another tower)."""
    block = _BLOCK.search(name)
    return block is not None and int(block.group(1)) >= n_blocks and not is_tower(name)


def needed_weights(weight_map: dict[str, str], n_blocks: int) -> dict[str, str]:
    """Entries of a checkpoint index outside blocks from `n_blocks` on and outside heads."""
    return {
        name: file
        for name, file in weight_map.items()
        if not is_later(name, n_blocks) and not name.startswith(HEADS)
    }


def outside_blocks(name: str) -> bool:
    """Whether a weight belongs to the text's embedding, final norm or head."""
    return not IN_BLOCK.search(name) and not is_tower(name)


SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
CHOICES = (SINGLE, INDEX, "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Weight files; transformers (`_get_resolved_checkpoint_files`) reads the first that is present."""
_LONGEST = 100_000_000
"""Bytes of the longest header that safetensors accepts."""


@dataclass(frozen=True)
class Header:
    """Shapes and types of numbers (`F32`, `BF16`, `I8`) by name."""

    shapes: dict[str, tuple[int, ...]]
    numbers: dict[str, str]


def weight_files(path: str) -> dict[str, Path] | None:
    """Weight name -> file, where transformers would read safetensors files of the folder.

    None for a hub id, and where transformers would read other files or none. ValueError for a
    file that cannot be read.
    """
    folder = Path(path).expanduser()
    if (folder / SINGLE).is_file():
        return dict.fromkeys(read_header(folder / SINGLE).shapes, folder / SINGLE)
    if not (folder / INDEX).is_file():
        return None
    try:
        entries = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].items()
        return {str(name): folder / file for name, file in entries}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / INDEX} names no weights ({error}); save the model again") from error


def read_header(file: Path) -> Header:
    """The header of a safetensors file; ValueError where it is truncated or of another format."""
    size = file.stat().st_size
    with file.open("rb") as handle:
        start = handle.read(8)
        length = int.from_bytes(start, "little")
        if start.startswith(b"version "):
            raise ValueError(
                f"{file} is a Git LFS pointer instead of weights; run git lfs pull in its folder"
            )
        if size < 8 or length > min(size - 8, _LONGEST):
            raise ValueError(_broken(file, f"its {size:,} bytes hold no whole header"))
        try:
            entries: dict[str, Any] = json.loads(handle.read(length))
            entries.pop("__metadata__", None)
            shapes = {name: tuple(map(int, entry["shape"])) for name, entry in entries.items()}
            numbers = {name: str(entry.get("dtype")) for name, entry in entries.items()}
            end = max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
            raise ValueError(_broken(file, "its header is no list of weights")) from error
    if size != 8 + length + end:
        raise ValueError(_broken(file, f"it has {size:,} of {8 + length + end:,} bytes"))
    return Header(shapes, numbers)


def _broken(file: Path, reason: str) -> str:
    return f"{file} is cut or no safetensors file: {reason}; save or download the model again"
