"""The API key: read from the environment, removed from everything stored or shown."""

from __future__ import annotations

import base64
import json
import os
from typing import Any
from urllib.parse import quote

from crossdiff.annotation.settings import AnthropicCompatible, Claude

KEY_VARIABLE = "ANTHROPIC_API_KEY"
NO_KEY = "none"
"""Sent to a compatible server that wants no key."""
SHOWN = "[key]"
MIN_LENGTH = 8
"""Least length of a key that is removed; a shorter one (`none`, `EMPTY`) is a word of replies."""


def variable_of(settings: Claude | AnthropicCompatible) -> str:
    """Name of the environment variable that holds the key."""
    return settings.api_key_env if isinstance(settings, AnthropicCompatible) else KEY_VARIABLE


def api_key(settings: Claude | AnthropicCompatible) -> str:
    """The key from the environment; ValueError where it is missing, malformed, or among the settings."""
    name = variable_of(settings)
    key = os.environ.get(name, "").strip()
    if not key and isinstance(settings, AnthropicCompatible):
        return NO_KEY
    if not key:
        raise ValueError(
            f"this annotator needs an API key and {name} is not set; export it, or use annotator=lexical, "
            "which needs none"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError(f"{name} holds characters that no key has; export the key alone")
    if Secret(key).clean(settings.model_dump_json()) != settings.model_dump_json():
        raise ValueError(
            f"a setting of the annotator contains the key of {name}, and settings are written to files; "
            "remove it: the key is read from the environment only"
        )
    return key


class Secret:
    """Removes a key from texts, in every form in which a server may echo it."""

    def __init__(self, key: str) -> None:
        forms = {
            key, quote(key, safe=""), json.dumps(key)[1:-1],
            *(base64.b64encode(text.encode()).decode().rstrip("=") for text in (key, f":{key}")),
        }  # fmt: skip
        self.forms = sorted(forms, key=len, reverse=True) if len(key) >= MIN_LENGTH else []

    def clean(self, text: str) -> str:
        """The text without the key."""
        for form in self.forms:
            text = text.replace(form, SHOWN)
        return text

    def cleaned(self, value: Any) -> Any:
        """JSON content without the key; a number that contains it becomes null."""
        match value:
            case dict():
                return {self.clean(name): self.cleaned(item) for name, item in value.items()}
            case list():
                return [self.cleaned(item) for item in value]
            case str():
                return self.clean(value)
            case int() | float() if not isinstance(value, bool) and self.clean(str(value)) != str(value):
                return None
        return value
