"""Published numbers that studies hold their own against: one data file with its source (published.yaml)."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from crossdiff.settings import Settings

FILE = Path(__file__).with_name("published.yaml")


class PublishedChange(Settings):
    """A published relative change, and the row of the taxonomy that it is read as.

    `counts` (treatment, reference) are the smallest that fit the percentage; no count was published.
    """

    published: str
    level: Literal["class", "category"]
    name: str
    change: float
    counts: tuple[int, int]


class Published(Settings):
    """The content of published.yaml."""

    version: Literal[1]
    source: str
    where: str
    pairs: dict[str, str]
    exclusive: dict[str, int]
    direct: dict[str, Any]
    changes: tuple[PublishedChange, ...]
    causal: dict[str, Any]


@cache
def published() -> Published:
    """The published numbers."""
    return Published.model_validate(yaml.safe_load(FILE.read_text(encoding="utf-8")))
