"""Whether a local model can answer prompts, by its files: it needs a chat template and an end token."""

from __future__ import annotations

import json
from pathlib import Path

from crossdiff.models.pair import ORGANISM, ModelSettings

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
