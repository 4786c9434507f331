"""What one training run is, and where it works."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger

from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.sparsity import Sparsity
from crossdiff.training.settings import TrainingSettings


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps metrics.csv and, until it ends, what it needs to continue."""

    folder: Path

    @property
    def metrics(self) -> Path:
        """One row per logged step."""
        return self.folder / "metrics.csv"

    @property
    def checkpoint(self) -> Path:
        """State at the last saved optimizer step."""
        return self.folder / ".resume" / "last.ckpt"


@dataclass(frozen=True)
class TrainingRun:
    """Settings of one run, its device, and which of the `training.devices` ranks this process is."""

    dictionary: DictionarySettings
    sparsity: Sparsity
    training: TrainingSettings
    seed: int
    device: str = "cpu"
    rank: int = 0
    progress: bool = True
    loggers: tuple[Logger, ...] = ()

    @property
    def leads(self) -> bool:
        """Whether this process measures, reports and writes."""
        return self.rank == 0

    @property
    def lightning_devices(self) -> list[int] | int:
        """Lightning's `devices`: how many, or the index of the one GPU."""
        index = self.device.partition(":")[2]
        return [int(index)] if index else self.training.devices

    def identity(self) -> dict[str, Any]:
        """Settings that a checkpoint must have been written with."""
        return {
            "dictionary": self.dictionary.identity(),
            "sparsity": self.sparsity.identity(),
            "training": self.training.identity(),
            "seed": self.seed,
        }
