"""What the JSON files of a local model or adapter folder say, read without transformers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossdiff.models.weight_headers import read_header

_PROMPTS = ("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING", "CPT")
_NAMES = {
    "d_model": ("hidden_size", "n_embd", "d_model"),
    "n_blocks": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "d_mlp": ("intermediate_size", "n_inner", "ffn_dim"),
    "n_positions": ("max_position_embeddings", "n_positions", "max_seq_len"),
    "n_embeddings": ("vocab_size",),
}
"""What architectures call the same size."""
_ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_TIED = "tie_word_embeddings"


@dataclass(frozen=True)
class FolderSizes:
    """Sizes of a model; None where its config.json does not say them."""

    d_model: int | None
    n_blocks: int | None
    d_mlp: int | None
    n_positions: int | None
    n_embeddings: int | None
    is_tied: bool | None = None
    """Whether the head is the embedding."""


def folder_sizes(path: str) -> FolderSizes | None:
    """Sizes from `<path>/config.json`; None for a hub id or a folder without one."""
    file = Path(path).expanduser() / "config.json"
    if not file.is_file():
        return None
    config = _read(file)
    text = config.get("text_config")
    ties = [part.get(_TIED) for part in (config, text) if isinstance(part, dict) and _TIED in part]
    config = text if isinstance(text, dict) else config
    sizes = {size: _first(config, names) for size, names in _NAMES.items()}
    return FolderSizes(**sizes, is_tied=any(ties) if ties else None)


def read_config(path: str) -> dict[str, Any]:
    """The content of a local folder's config.json; nothing for a hub id or a folder without one."""
    file = Path(path).expanduser() / "config.json"
    return _read(file) if file.is_file() else {}


def adapter_base(path: str) -> str | None:
    """For a folder that holds a PEFT adapter and no model: the model it was trained on, or `<its base>`."""
    folder = Path(path).expanduser()
    if (folder / "config.json").exists() or not (folder / "adapter_config.json").is_file():
        return None
    return _read(folder / "adapter_config.json").get("base_model_name_or_path") or "<its base>"


def check_adapter(adapter: str) -> None:
    """Refuse an adapter folder without whole weights, and one that puts tokens of its own before the text.

    Adapters of the hub are looked at when they are merged.
    """
    file = Path(adapter).expanduser() / "adapter_config.json"
    if file.is_file():
        refuse_prompts(adapter, _read(file).get("peft_type"))
        weights = [file.with_name(name) for name in _ADAPTER_WEIGHTS if file.with_name(name).is_file()]
        if not weights:
            raise ValueError(
                f"adapter {adapter} holds none of {' and '.join(_ADAPTER_WEIGHTS)}; save or download it again"
            )
        if weights[0].suffix == ".safetensors":
            read_header(weights[0])


def refuse_prompts(adapter: str, kind: Any) -> None:
    """ValueError for a kind of adapter that puts tokens of its own before the text."""
    kind = str(getattr(kind, "value", kind))
    if kind in _PROMPTS:
        raise ValueError(
            f"adapter {adapter} is {kind}: it puts trained tokens before the text and changes no weight, "
            "so it cannot be merged; give an adapter that changes weights, such as LoRA"
        )


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # broken JSON, or bytes that are no UTF-8
        raise ValueError(f"{file} is no JSON ({error}); save the model again") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file} holds {type(found).__name__} instead of settings; save the model again")
    return found


def _first(config: dict[str, Any], names: tuple[str, ...]) -> int | None:
    found = (config.get(name) for name in names)
    return next((value for value in found if isinstance(value, int) and value > 0), None)
