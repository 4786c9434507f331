"""Where a run is written down besides its artifacts: the settings group `logger`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from crossdiff.settings import Settings


class CsvLogger(Settings):
    """`steps.csv` and `metrics.<pair>.csv` in the results folder; nothing leaves the machine."""


class NoLogger(Settings):
    """Nothing besides the artifacts."""


class WandbLogger(Settings):
    """One Weights & Biases run per finished step.

    The group is `group`, or the title of the comparison or sweep. `mode` None follows `WANDB_MODE` and,
    without a login, records offline. The API key stays in the environment and is never a setting.
    """

    project: str = "crossdiff"
    entity: str | None = None
    group: str | None = None
    mode: Literal["online", "offline"] | None = None
    folder: Path | None = None
    tags: tuple[str, ...] = ()
    timeout_seconds: float = Field(default=120.0, gt=0)


LoggerSettings = CsvLogger | WandbLogger | NoLogger
