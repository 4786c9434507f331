"""The chat template of a local folder as text, read without transformers."""

from __future__ import annotations

import re
from pathlib import Path

from crossdiff.models.pair import ModelSettings

_FILES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
_NAMES = "(?:upper|lower|title|capitalize|swapcase|casefold)"
_LETTERS = re.compile(
    rf"""([\w'"\[\].()|,\ ]*?)\s*(?:\|\s*{_NAMES}\b|\.{_NAMES}\s*\()|{{%-?\s*filter\s+{_NAMES}\b"""
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
