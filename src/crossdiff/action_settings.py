"""Settings of the values of `action` that have some: one block per verb, `action=export export.what=...`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from crossdiff.settings import Settings

ExportFormat = Literal["png", "svg", "csv", "tex", "jsonl", "dictionary_learning", "crossdiff"]

FORMATS: dict[str, tuple[ExportFormat, ...]] = {
    "figures": ("svg", "png"),
    "tables": ("csv", "tex"),
    "annotations": ("jsonl", "csv"),
    "checkpoint": ("dictionary_learning", "crossdiff"),
}
"""Formats of everything that can be exported, the default first."""


class ExportSettings(Settings):
    """What `action=export` writes, and how.

    format: one of `FORMATS[what]`, the first unless given.
    hub_id: also upload the crosscoder to this (private) Hugging Face repository, for `Crosscoder.load`.
    """

    what: Literal["figures", "tables", "annotations", "checkpoint"] = "figures"
    format: ExportFormat | None = None
    folder: Path = Path("export")
    hub_id: str | None = None

    @model_validator(mode="after")
    def _fits(self) -> ExportSettings:
        formats = FORMATS[self.what]
        if self.format is not None and self.format not in formats:
            raise ValueError(
                f"export.what={self.what} cannot be written as export.format={self.format}; "
                f"choose {' or '.join(formats)}"
            )
        if self.hub_id is not None and self.chosen_format != "crossdiff":
            raise ValueError(
                f"export.hub_id uploads our own format, not {self.what} as {self.chosen_format}; "
                "use export.what=checkpoint export.format=crossdiff"
            )
        return self

    @property
    def chosen_format(self) -> ExportFormat:
        """The format asked for, or the default of what is exported."""
        return self.format or FORMATS[self.what][0]


class ValidateSettings(Settings):
    """The human check: `mode=export` writes a blind rating sheet, `mode=import` reads it back.

    n: items on the sheet, balanced over categories.
    unit: what one item shows: one document, or the documents of one latent.
    file: the filled sheet; a list where several people rated, one file each.
    """

    mode: Literal["export", "import"] = "export"
    n: int = Field(default=100, ge=1)
    unit: Literal["document", "latent"] = "document"
    file: Path | tuple[Path, ...] | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The filled sheets, one per person."""
        match self.file:
            case None:
                return ()
            case Path():
                return (self.file,)
            case _:
                return self.file


class FreezeSettings(Settings):
    """`action=taxonomy`: look at a run's taxonomy, induce one, or extend it by what came out as `other`.

    file: where an induced or extended taxonomy is written; use it with taxonomy=file taxonomy.path=<file>.
    n_new: the most categories that an extension adds.
    """

    mode: Literal["show", "induce", "extend"] = "show"
    file: Path = Path("taxonomy.yaml")
    n_new: int = Field(default=8, ge=1)


class CompareRuns(Settings):
    """Results folders (a glob) that `action=compare` lays side by side on one page.

    `wandb` also saves a report or a workspace of the same figures in the project of `logger=wandb`; that
    needs an account.
    """

    runs: str = "results/*"
    page: Path = Path("results/runs.html")
    wandb: Literal["report", "workspace"] | None = None
