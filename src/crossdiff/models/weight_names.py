"""What the names of a checkpoint's weights mean; imports no torch."""

from __future__ import annotations

import re

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
