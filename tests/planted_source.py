"""An in-memory activation source with planted latents, the same methods as `PairedActivations`."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.sparsity import BatchTopK, Sparsity
from crossdiff.data.paired_activations import Split
from crossdiff.data.paired_batch import PairedBatch
from crossdiff.training.settings import TrainingSettings
from crossdiff.training.trainer import TrainingRun


class PlantedSource:
    """Sparse non-negative combinations of random directions, some of them in one model only."""

    def __init__(
        self, *, n_rows: int = 6000, d_model: int = 32, n_planted: int = 64, n_models: int = 2
    ) -> None:
        generator = torch.Generator().manual_seed(1)
        directions = torch.randn(n_planted, n_models, d_model, generator=generator)
        directions /= directions.norm(dim=2, keepdim=True)
        directions[: n_planted // 8, 0] = 0
        active = torch.rand(n_rows, n_planted, generator=generator) < 4 / n_planted
        code = active * (1 + torch.rand(n_rows, n_planted, generator=generator))
        noise = 0.02 * torch.randn(n_rows, n_models, d_model, generator=generator)
        self.x = 3.0 * torch.einsum("tl,lmd->tmd", code, directions) + noise + 0.5
        self.n_models, self.d_model = n_models, d_model
        self.document = torch.arange(n_rows) // 100
        self.held_out = self.document % 10 == 0

    def rows(self, split: Split = "all") -> torch.Tensor:
        keep = {"all": self.held_out | True, "validation": self.held_out, "train": ~self.held_out}[split]
        return keep.nonzero().squeeze(1)

    def statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.x[self.rows("train")].double()
        return x.mean(dim=0), x.var(dim=0, unbiased=False)

    def read(self, rows: torch.Tensor) -> PairedBatch:
        return PairedBatch(
            stored=self.x[rows], row=rows, document=self.document[rows], template=torch.zeros_like(rows) > 0
        )

    def batches(self, *, split: Split = "all", batch_size: int) -> Iterator[PairedBatch]:
        for rows in self.rows(split).split(batch_size):
            yield self.read(rows)

    def document_of(self, rows: torch.Tensor) -> torch.Tensor:
        return self.document[rows]

    def batches_of(self, rows: torch.Tensor, *, batch_size: int) -> Iterator[PairedBatch]:
        for part in rows.sort().values.split(batch_size):
            yield self.read(part)

    def training_batch(self, number: int, *, seed: int, batch_size: int) -> PairedBatch:
        generator = torch.Generator().manual_seed(1000 * seed + number)
        rows = self.rows("train")
        return self.read(rows[torch.randperm(len(rows), generator=generator)[:batch_size]])


SMALL = {"batch_size": 128, "learning_rate": 1e-3, "warmup_steps": 5}
FEW = BatchTopK(k=4, k_initial=12, anneal_steps=8)


def planted_run(sparsity: Sparsity = FEW, *, n_latents: int = 256, **training) -> TrainingRun:
    """A run of seconds on a `PlantedSource`."""
    return TrainingRun(
        dictionary=DictionarySettings(n_latents=n_latents),
        sparsity=sparsity,
        training=TrainingSettings(**{**SMALL, **training}),
        seed=0,
        progress=False,
    )
