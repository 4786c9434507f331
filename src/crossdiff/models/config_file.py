"""What the files of a local model or adapter say, read without transformers: sizes, template, end token."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossdiff.models.pair import ORGANISM, ModelSettings
from crossdiff.models.weight_names import read_header

_PROMPTS = ("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING", "CPT")
_NAMES = {
    "d_model": ("hidden_size", "n_embd", "d_model"),
    "n_blocks": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "d_mlp": ("intermediate_size", "n_inner", "ffn_dim"),
    "n_positions": ("max_position_embeddings", "n_positions", "max_seq_len"),
    "n_embeddings": ("vocab_size",),
}
"""Size -> its names in config.json, by architecture."""
_ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_TIED = "tie_word_embeddings"


@dataclass(frozen=True)
class FolderSizes:
    """Sizes of a model; None where config.json lacks them."""

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
    """The content of a local folder's config.json; empty for a hub id or a folder without one."""
    file = Path(path).expanduser() / "config.json"
    return _read(file) if file.is_file() else {}


def adapter_base(path: str) -> str | None:
    """Base model of a folder with a PEFT adapter alone (`<its base>` where unnamed); None for others."""
    folder = Path(path).expanduser()
    if (folder / "config.json").exists() or not (folder / "adapter_config.json").is_file():
        return None
    return _read(folder / "adapter_config.json").get("base_model_name_or_path") or "<its base>"


def check_adapter(adapter: str) -> None:
    """ValueError for a local adapter without whole weights, or one that puts tokens before the text.

    Hub adapters are checked when they are merged.
    """
    file = Path(adapter).expanduser() / "adapter_config.json"
    if file.is_file():
        refuse_prompts(adapter, _read(file).get("peft_type"))
        weights = [file.with_name(name) for name in _ADAPTER_WEIGHTS if file.with_name(name).is_file()]
        if not weights:
            raise ValueError(
                f"adapter {adapter} has none of {' and '.join(_ADAPTER_WEIGHTS)}; save or download it again"
            )
        if weights[0].suffix == ".safetensors":
            read_header(weights[0])


def refuse_prompts(adapter: str, kind: Any) -> None:
    """ValueError for a kind of adapter that puts trained tokens before the text."""
    kind = str(getattr(kind, "value", kind))
    if kind in _PROMPTS:
        raise ValueError(
            f"adapter {adapter} is {kind}: it puts trained tokens before the text and changes no weight, "
            "so it cannot be merged; give an adapter that changes weights, such as LoRA"
        )


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # broken JSON, or bytes that are no UTF-8
        raise ValueError(f"{file} is no JSON ({error}); save the model again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} has {type(content).__name__} instead of settings; save the model again")
    return content


def _first(config: dict[str, Any], names: tuple[str, ...]) -> int | None:
    given = (config.get(name) for name in names)
    return next((value for value in given if isinstance(value, int) and value > 0), None)


_FILES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
_CASE = "(?:upper|lower|title|capitalize|swapcase|casefold)"
_LETTERS = re.compile(
    rf"""([\w'"\[\].()|,\ ]*?)\s*(?:\|\s*{_CASE}\b|\.{_CASE}\s*\()|{{%-?\s*filter\s+{_CASE}\b"""
)
"""A filter or method that changes letters, with its operand."""


def changes_letters(model: ModelSettings) -> bool:
    """Whether the template in the model's or its adapter's folder changes the letters of contents.

    A role in capitals (`USER:`) does not count. False for hub models, whose files a plan does not read.
    """
    folders = [Path(path).expanduser() for path in (model.adapter, model.path) if path is not None]
    texts = (_text(folder / name) for folder in folders for name in _FILES)
    return any(
        "role" not in (match.group(1) or "").lower() for text in texts for match in _LETTERS.finditer(text)
    )


def _text(file: Path) -> str:
    """The file's text, with templates inside JSON; empty without a file."""
    if not file.is_file():
        return ""
    text = file.read_text(encoding="utf-8", errors="replace")
    return text.replace('\\"', '"') if file.suffix == ".json" else text


NO_TEMPLATE = "{path} has no chat template, so it cannot be asked; name a tuned model that has one"
NO_END = (
    "{path} has no generation config that names the end of a turn (eos_token_id); add generation_config.json "
    "to the model's folder"
)


def check_can_be_asked(settings: ModelSettings) -> None:
    """ValueError for a local model without chat template or end token.

    Hub models and models that a step will make are checked when they are loaded.
    """
    folder = Path(settings.path).expanduser()
    if settings.path.startswith(ORGANISM) or not folder.is_dir():
        return
    adapter = Path(settings.adapter).expanduser() if settings.adapter is not None else folder
    if adapter.is_dir() and not any(map(_has_template, (adapter, folder))):
        raise ValueError(NO_TEMPLATE.format(path=settings.path))
    if not any(_gives(folder, name, "eos_token_id") for name in ("generation_config.json", "config.json")):
        raise ValueError(NO_END.format(path=settings.path))


def _has_template(folder: Path) -> bool:
    names = ("chat_template.jinja", "chat_template.json", "additional_chat_templates")
    files = any((folder / name).exists() for name in names)
    return files or _gives(folder, "tokenizer_config.json", "chat_template")


def _gives(folder: Path, name: str, key: str) -> bool:
    """Whether a JSON file of the folder gives a value."""
    path = folder / name
    return path.is_file() and json.loads(path.read_text(encoding="utf-8")).get(key) is not None
