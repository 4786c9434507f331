"""Small runs on planted activations that are stopped by a signal, and what they are compared by."""

import csv
import os

import torch

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.sparsity import BatchTopK
from crossdiff.training.trainer import RunFolder, TrainingRun
from tests.planted_source import PlantedSource, planted_run


class Interrupting(PlantedSource):
    """Sends this process a signal when a certain batch is fetched."""

    def __init__(self, *, at: int, number: int) -> None:
        super().__init__(n_rows=2000)
        self.at, self.number = at, number

    def training_batch(self, number: int, *, seed: int, batch_size: int):
        if number == self.at:
            self.at = -1
            os.kill(os.getpid(), self.number)
        return super().training_batch(number, seed=seed, batch_size=batch_size)


class InterruptingValidation(PlantedSource):
    """Sends this process a signal when the sample's first batch is read; counts the batches."""

    def __init__(self, number: int) -> None:
        super().__init__(n_rows=2000)
        self.number, self.n_validated = number, 0

    def batches_of(self, rows: torch.Tensor, *, batch_size: int):
        os.kill(os.getpid(), self.number)
        for batch in super().batches_of(rows, batch_size=32):
            self.n_validated += 1
            yield batch


def make_run(**changes) -> TrainingRun:
    training = {
        "n_steps": 30, "learning_rate": 3e-3, "dead_after_tokens": 500, "validate_every": 9, "log_every": 4,
        "checkpoint_every": 4, **changes,
    }  # fmt: skip
    return planted_run(BatchTopK(k=6, k_initial=16, anneal_steps=10), n_latents=128, **training)


def logged(folder: RunFolder) -> list[dict[str, str]]:
    """Rows of metrics.csv without the one figure that a clock decides."""
    with folder.metrics.open(newline="") as handle:
        return [{**row, "tokens_per_s": ""} for row in csv.DictReader(handle)]


def assert_same_bits(crosscoder: Crosscoder, other: Crosscoder) -> None:
    for name, tensor in other.state_dict().items():
        assert torch.equal(crosscoder.state_dict()[name], tensor), name
