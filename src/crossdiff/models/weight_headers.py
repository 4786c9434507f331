"""Names and shapes of a local folder's weights, from the headers of its safetensors files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
