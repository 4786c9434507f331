"""Which weight files the first blocks need: the others are neither downloaded nor opened."""

from __future__ import annotations

import json
import re
from pathlib import Path

from crossdiff.models.hub import hub
from crossdiff.models.pair import ModelSettings, is_folder

INDEX = "model.safetensors.index.json"
_BLOCK = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
HEADS = ("lm_head.", "embed_out.")
_SMALL = ["*.json", "*.model", "*.txt", "*.jinja", "*.py"]


def needed_weights(weight_map: dict[str, str], n_blocks: int) -> dict[str, str]:
    """Entries of a checkpoint index that belong to blocks below `n_blocks` or to no block; heads left out."""
    kept = {}
    for name, file in weight_map.items():
        block = _BLOCK.search(name)
        is_later = block is not None and int(block.group(1)) >= n_blocks
        if not is_later and not name.startswith(HEADS):
            kept[name] = file
    return kept


def link_needed(checkpoint: Path, view: Path, *, n_blocks: int) -> Path:
    """A folder of links to a checkpoint in several files that holds only the files needed."""
    index = json.loads((checkpoint / INDEX).read_text(encoding="utf-8"))
    index["weight_map"] = needed_weights(index["weight_map"], n_blocks)
    wanted = set(index["weight_map"].values())
    for path in checkpoint.iterdir():
        is_weight = path.suffix in (".safetensors", ".bin", ".pt", ".pth")
        if path.name != INDEX and path.is_file() and (not is_weight or path.name in wanted):
            (view / path.name).symlink_to(path.resolve())
    (view / INDEX).write_text(json.dumps(index), encoding="utf-8")
    return view


def checkpoint_folder(model: ModelSettings, path: str, *, n_blocks: int, way_out: str) -> Path | None:
    """Folder of a checkpoint in several files, its needed files fetched; None for one in a single file."""
    if is_folder(path):
        folder = Path(path)
        return folder if (folder / INDEX).is_file() else None
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError

    with hub(f"model {model.path}", way_out=way_out):
        try:
            index = hf_hub_download(path, INDEX, revision=model.revision)
        except EntryNotFoundError:
            return None
        weight_map = json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"]
        files = sorted(set(needed_weights(weight_map, n_blocks).values()))
        found = snapshot_download(path, revision=model.revision, allow_patterns=[*_SMALL, *files])
    return Path(found)
