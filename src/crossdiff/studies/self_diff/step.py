"""A crosscoder of one model against itself, and its exclusive latents (method.md section 6)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.exclusive_call import SelectionSettings
from crossdiff.core.latent_scaling import in_dtype
from crossdiff.core.streaming import mix
from crossdiff.data.paired_activations import PairedActivations, Split
from crossdiff.data.paired_batch import PairedBatch
from crossdiff.data.settings import MaskSettings
from crossdiff.io.tables import write_json
from crossdiff.settings import Runtime, Settings
from crossdiff.stages import scale
from crossdiff.stages.protocol import Stage, needs
from crossdiff.stages.train import TrainInputs, fit_and_save
from crossdiff.training.scaling_pass import pass_over

VERSION = 4


class SelfDiffInputs(Settings):
    """The crosscoder's training, and the noise of each copy in units of every component's deviation.

    Both copies start with independent decoder directions, whatever `train.dictionary` says: with equal
    starts and nearly equal inputs the directions would stay equal and the test would be empty.
    """

    train: TrainInputs
    selection: SelectionSettings = SelectionSettings()
    noise: float = Field(default=0.01, gt=0)

    def training(self) -> TrainInputs:
        """The training with independent starts."""
        dictionary = self.train.dictionary.model_copy(update={"initial_decoders": "independent"})
        return self.train.model_copy(update={"dictionary": dictionary})


def run(inputs: SelfDiffInputs, parents: Mapping[str, Path], draft: Path, runtime: Runtime) -> dict[str, Any]:
    """Train, scale; write what train and scale write, and `self_diff.json` with the figures."""
    training = inputs.training()
    open_source = partial(
        open_self_pair,
        parents,
        layer=training.layer,
        mask=training.mask,
        noise=inputs.noise,
        seed=training.seed,
        device=runtime.device,
    )
    figures = fit_and_save(training, parents, open_source, draft=draft, runtime=runtime)
    crosscoder = in_dtype(Crosscoder.load(draft / "crosscoder").to(runtime.device), torch.float32)
    batch_size = training.training.batch_size
    sums = pass_over(
        crosscoder, open_source(), batch_size=batch_size, device=runtime.device, progress=runtime.progress
    )
    record = scale.write_scaled(crosscoder, sums, inputs.selection, draft)
    record |= {name: figures[name] for name in ("fve_base", "fve_tuned")}
    record |= {"seed": training.seed, "per_1000_alive": per_1000_alive(record)}
    write_json(record, draft / "self_diff.json")
    return record


def open_self_pair(
    parents: Mapping[str, Path], *, layer: int, mask: MaskSettings, noise: float, seed: int, device: str
) -> SelfPair:
    """The harvest `harvest_base` twice, each with its own noise."""
    one = PairedActivations.open(
        parents["tokens"], [parents["harvest_base"]], layer=layer, mask=mask, device=device
    )
    return SelfPair(one, noise=noise, seed=seed)


def per_1000_alive(record: Mapping[str, Any]) -> float | None:
    """Latents called exclusive to either copy per 1,000 alive ones; None where none is alive."""
    n_exclusive = record["n_exclusive_tuned"] + record["n_exclusive_base"]
    return 1000 * n_exclusive / record["n_alive"] if record["n_alive"] else None


STAGE = Stage(
    "self_diff",
    version=VERSION,
    run=run,
    reads=("tokens", "harvest"),
    writes="a model against itself, and how many latents are called exclusive",
    resources=needs(gpus=1, cpus=8, memory_gb=96, hours=48),
)


CHUNK_ROWS = 32
"""Rows whose noise is made at a time: what lies in between fits a processor's cache."""


class SelfPair:
    """Offers what `PairedActivations` offers: base and tuned are the same model, each with its own noise.

    The noise of a component is `noise` times that component's standard deviation, normal, and a fixed
    function of (seed, model, row, component), so that every pass over the rows sees the same activations.
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
        """Those of the model, with the variance that the noise adds."""
        variance = self.deviation.square() * (1 + self.noise**2)
        return self.mean.expand(2, -1), variance.expand(2, -1)

    def rows(self, split: Split = "all") -> Int[Tensor, " row"]:
        """Rows kept by the mask."""
        return self.activations.rows(split)

    def n_kept(self, split: Split = "all") -> int:
        """How many rows `rows(split)` has."""
        return self.activations.n_kept(split)

    def read(self, rows: Int[Tensor, " row"]) -> PairedBatch:
        """Activations of arbitrary rows."""
        return self._noisy(self.activations.read(rows))

    def batches(self, *, split: Split = "all", batch_size: int) -> Iterator[PairedBatch]:
        """Kept rows in corpus order."""
        for batch in self.activations.batches(split=split, batch_size=batch_size):
            yield self._noisy(batch)

    def document_of(self, rows: Int[Tensor, " row"]) -> Int[Tensor, " row"]:
        """Index of the document that each row belongs to."""
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
        """Standard normal values: the two independent ones that Box and Muller make of a hashed counter."""
        counter = row[:, None].long() * self.d_model + torch.arange(self.d_model)
        hashed = mix(counter, salt=1000 * (self.seed + 1))  # 63 bits: 24 for the radius, 24 for the angle
        radius = (((hashed >> 39).float() + 0.5) / 2**24).log_().mul_(-2).sqrt_()
        angle = ((hashed >> 15) & 0xFF_FFFF).float().mul_(2 * torch.pi / 2**24)
        return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
