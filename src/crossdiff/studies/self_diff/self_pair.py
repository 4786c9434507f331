"""One model's harvest as a pair of equal models with independent noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from crossdiff.core.streaming import mix
from crossdiff.data.paired_activations import PairedActivations, Split
from crossdiff.data.paired_batch import PairedBatch
from crossdiff.data.settings import MaskSettings

CHUNK_ROWS = 32
"""Rows whose noise is made at a time, few enough for a processor's cache."""


class SelfPair:
    """A pair with the interface of `PairedActivations`: base and tuned are one model with different noise.

    The noise of a component is normal with `noise` times the component's standard deviation, and a fixed
    function of (seed, model, row, component), so that every pass reads the same activations.
    """

    def __init__(
        self, activations: PairedActivations, *, model: int = 0, noise: float = 0.01, seed: int = 0
    ) -> None:
        self.activations, self.model, self.noise, self.seed = activations, model, noise, seed
        self.n_models, self.d_model, self.n_rows = 2, activations.d_model, activations.n_rows
        self.token_set, self.kept = activations.token_set, activations.kept
        mean, variance = activations.statistics()
        self.mean, self.deviation = mean[model], variance[model].sqrt()

    def statistics(self) -> tuple[Float[Tensor, "model d_model"], Float[Tensor, "model d_model"]]:
        """Mean and variance of the model, with the variance of the noise."""
        variance = self.deviation.square() * (1 + self.noise**2)
        return self.mean.expand(2, -1), variance.expand(2, -1)

    def rows(self, split: Split = "all") -> Int[Tensor, " row"]:
        """Rows kept by the mask."""
        return self.activations.rows(split)

    def read(self, rows: Int[Tensor, " row"]) -> PairedBatch:
        """Activations of arbitrary rows."""
        return self._noisy(self.activations.read(rows))

    def batches(self, *, split: Split = "all", batch_size: int) -> Iterator[PairedBatch]:
        """Kept rows in corpus order."""
        for batch in self.activations.batches(split=split, batch_size=batch_size):
            yield self._noisy(batch)

    def document_of(self, rows: Int[Tensor, " row"]) -> Int[Tensor, " row"]:
        """Index of each row's document."""
        return self.activations.document_of(rows)

    def batches_of(self, rows: Int[Tensor, " row"], *, batch_size: int) -> Iterator[PairedBatch]:
        """The given rows in corpus order."""
        for batch in self.activations.batches_of(rows, batch_size=batch_size):
            yield self._noisy(batch)

    def training_batch(self, number: int, *, seed: int, batch_size: int) -> PairedBatch:
        """Batch `number` of the shuffled stream."""
        return self._noisy(self.activations.training_batch(number, seed=seed, batch_size=batch_size))

    def _noisy(self, batch: PairedBatch) -> PairedBatch:
        x = batch.x[:, self.model, None].expand(-1, 2, -1)
        normal = torch.empty(x.shape)
        for part, rows in zip(normal.split(CHUNK_ROWS), batch.row.split(CHUNK_ROWS), strict=True):
            part.copy_(self._normal(rows))
        return replace(batch, stored=normal.mul_(self.noise * self.deviation.float()).add_(x))

    def _normal(self, row: Int[Tensor, " token"]) -> Float[Tensor, "token model d_model"]:
        """Two independent standard normal values from a hashed counter (Box-Muller)."""
        counter = row[:, None].long() * self.d_model + torch.arange(self.d_model)
        hashed = mix(counter, salt=1000 * (self.seed + 1))  # 63 bits: 24 for the radius, 24 for the angle
        radius = (((hashed >> 39).float() + 0.5) / 2**24).log_().mul_(-2).sqrt_()
        angle = ((hashed >> 15) & 0xFF_FFFF).float().mul_(2 * torch.pi / 2**24)
        return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)


def open_self_pair(
    parents: Mapping[str, Path], *, layer: int, mask: MaskSettings, noise: float, seed: int, device: str
) -> SelfPair:
    """The pair made of the harvest `harvest_base`."""
    one = PairedActivations.open(
        parents["tokens"], [parents["harvest_base"]], layer=layer, mask=mask, device=device
    )
    return SelfPair(one, noise=noise, seed=seed)
