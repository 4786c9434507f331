"""Settings of the values of `action` that have some: one block per verb, `action=export export.what=...`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from crossdiff.settings import Settings


class ExportSettings(Settings):
    """What `action=export` writes, and how."""

    what: Literal["figures", "tables", "annotations", "checkpoint"] = "figures"
    format: Literal["png", "svg", "csv", "jsonl", "dictionary_learning"] = "svg"
    folder: Path = Path("export")


class ValidateSettings(Settings):
    """The human check: `mode=export` writes a blind rating sheet, `mode=import` reads it back."""

    mode: Literal["export", "import"] = "export"
    n: int = Field(default=100, ge=1)
    file: Path | None = None


class CompareRuns(Settings):
    """Results folders that `action=compare` lays side by side (a glob)."""

    runs: str = "results/*"
