"""Planted activations: a sparse generative model of two models' activations with known latents.

Token t of document n: `x_t^m = s_m (mean^m + sum_j a_tj gain_nj^m g_j^m u_j^m + offset_n^m +
noise_t^m)`: sparse codes a, unit directions u per model, norm g (0 where the model lacks the latent),
document gains and offsets that make tokens of one document alike, and a scale per model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from crossdiff.data.paired_activations import Split
from crossdiff.data.paired_batch import PairedBatch
from crossdiff.studies.planted.settings import PlantedKind, PlantedSettings

BASE, TUNED = 0, 1


@dataclass(frozen=True)
class PlantedBatch:
    """Activations in raw units, their documents, and the true codes."""

    x: Float[Tensor, "token model d_model"]
    document: Int[Tensor, " token"]
    code: Float[Tensor, "token planted"]


@dataclass(frozen=True)
class Planted:
    """One draw of directions and means; documents are drawn by number, each from its own seed."""

    settings: PlantedSettings
    seed: int

    @cached_property
    def kinds(self) -> list[PlantedKind]:
        """Kind of every planted latent."""
        return [kind for kind, count in self.settings.counts().items() for _ in range(count)]

    @cached_property
    def frequency(self) -> Float[Tensor, " planted"]:
        """Share of tokens at which each latent fires."""
        choices = self.settings.frequencies
        places = [i for count in self.settings.counts().values() for i in range(count)]
        return torch.tensor([choices[i // 2 % len(choices)] for i in places])

    @cached_property
    def parent(self) -> dict[int, int]:
        """Latent -> its parent, a more frequent latent of any kind without which it does not fire."""
        if not self.settings.parent_share:
            return {}
        rarer = (self.frequency < self.frequency.max()).nonzero().flatten()
        generator = torch.Generator().manual_seed(self.seed + 2)
        order = rarer[torch.randperm(len(rarer), generator=generator)]
        children = order[: round(self.settings.parent_share * len(rarer))]
        free = torch.ones(len(self.kinds), dtype=torch.bool)
        free[children] = False
        chosen = {}
        for child in children.tolist():
            above = (free & (self.frequency > self.frequency[child])).nonzero().flatten()
            chosen[child] = int(above[torch.randint(len(above), (1,), generator=generator)])
        return chosen

    @cached_property
    def directions(self) -> Float[Tensor, "planted model d_model"]:
        """`g_j^m u_j^m`, the decoder of a perfect dictionary without the models' scales."""
        generator = torch.Generator().manual_seed(self.seed)
        first, second = (
            normalize(torch.randn(len(self.kinds), self.settings.d_model, generator=generator)) for _ in "12"
        )
        second = normalize(second - (second * first).sum(1, keepdim=True) * first)
        cosine = self.settings.rotation_cosine
        rotated = cosine * first + (1 - cosine**2) ** 0.5 * second
        both = torch.stack([first, torch.where(self.of("rotated")[:, None], rotated, first)], dim=1)
        norms = torch.ones(len(self.kinds), 2)
        norms[self.of("tuned_only"), BASE] = 0
        norms[self.of("base_only"), TUNED] = 0
        norms[self.of("shrunken"), BASE] = self.settings.shrunken_ratio
        return both * norms[:, :, None]

    @cached_property
    def mean(self) -> Float[Tensor, "model d_model"]:
        """Mean activation per model, before the models' scales."""
        generator = torch.Generator().manual_seed(self.seed + 1)
        return torch.randn(2, self.settings.d_model, generator=generator) / self.settings.d_model**0.5

    def of(self, kind: PlantedKind) -> Bool[Tensor, " planted"]:
        """Mask of the latents of a kind."""
        return torch.tensor([of_latent == kind for of_latent in self.kinds], dtype=torch.bool)

    def batches(self, *, first: int, n_documents: int, per_batch: int = 32) -> Iterator[PlantedBatch]:
        """Documents `first` to `first + n_documents - 1`, `per_batch` at a time.

        A batch has one seed, so keep `per_batch` and start at its multiples to get the same documents.
        """
        for start in range(first, first + n_documents, per_batch):
            yield self._draw(start, min(per_batch, first + n_documents - start))

    def tokens(self, *, first: int, n_documents: int) -> PlantedBatch:
        """The documents as one batch."""
        parts = list(self.batches(first=first, n_documents=n_documents))
        return PlantedBatch(
            *(torch.cat([getattr(p, name) for p in parts]) for name in ("x", "document", "code"))
        )

    def _draw(self, first: int, n_documents: int) -> PlantedBatch:
        settings, n_planted = self.settings, len(self.kinds)
        generator = torch.Generator().manual_seed((self.seed << 32) + 7 * first + 11)
        shape = (n_documents, settings.document_length, n_planted)
        code, companion = (self._codes(shape, generator) for _ in range(2))
        gain = 1 + settings.gain_spread * torch.randn(n_documents, n_planted, 2, generator=generator)
        x = torch.empty(n_documents, settings.document_length, 2, settings.d_model)
        extra = companion * self.of("decoupled")
        for model in (BASE, TUNED):
            active = code + extra if model == BASE else code
            x[:, :, model] = (active * gain[:, None, :, model]) @ self.directions[:, model]
        x += settings.offset * torch.randn(n_documents, 1, 2, settings.d_model, generator=generator)
        x += settings.noise * torch.randn(x.shape, generator=generator)
        x = (x + self.mean) * torch.tensor(settings.scales)[:, None]
        document = torch.arange(first, first + n_documents).repeat_interleave(settings.document_length)
        return PlantedBatch(x.flatten(0, 1), document, code.flatten(0, 1))

    def _codes(
        self, shape: tuple[int, int, int], generator: torch.Generator
    ) -> Float[Tensor, "document token planted"]:
        """Sparse positive codes: topical documents, pairs that fire together, log-normal strengths."""
        settings = self.settings
        n_documents, _, n_planted = shape
        number = torch.arange(n_planted)
        paired = number < settings.correlated_share * n_planted
        leader = torch.where(paired, number & ~1, number)
        topical = torch.rand(n_documents, 1, n_planted, generator=generator) < settings.document_share
        rate = self.frequency / settings.document_share
        alone = torch.rand(shape, generator=generator) < torch.where(paired, rate / 2, rate)
        together = torch.rand(shape, generator=generator)[..., leader] < torch.where(paired, rate / 2, 0)
        strength = (settings.strength_spread * torch.randn(shape, generator=generator)).exp()
        active = topical[..., leader] & (alone | together)
        if self.parent:
            child, parent = (torch.tensor(side) for side in zip(*self.parent.items(), strict=True))
            share = self.frequency[child] / self.frequency[parent]
            chosen = torch.rand((*shape[:2], len(child)), generator=generator) < share
            active[..., child] = active[..., parent] & chosen
        return active * strength


HELD_OUT_EVERY = 20


class PlantedSource:
    """Planted activations with the interface of `PairedActivations`.

    Documents are 0 to `n_documents - 1`; every 20th is held out of training.
    """

    def __init__(self, planted: Planted, *, n_documents: int) -> None:
        self.planted, self.n_documents = planted, n_documents
        self.n_models, self.d_model = 2, planted.settings.d_model
        self.document = torch.arange(n_documents).repeat_interleave(planted.settings.document_length)
        self.x = torch.empty(len(self.document), 2, self.d_model)
        place = 0
        for batch in planted.batches(first=0, n_documents=n_documents):
            self.x[place : place + len(batch.x)] = batch.x
            place += len(batch.x)

    @cached_property
    def held_out(self) -> Tensor:
        """Rows of held-out documents."""
        return self.document % HELD_OUT_EVERY == 0

    def statistics(self) -> tuple[Float[Tensor, "model d_model"], Float[Tensor, "model d_model"]]:
        """Float64 mean and variance of the training rows, raw units."""
        rows = self.x[~self.held_out].double()
        return rows.mean(dim=0), rows.var(dim=0, correction=0)

    def rows(self, split: Split = "all") -> Int[Tensor, " row"]:
        """Rows of a split."""
        kept = {"all": self.document >= 0, "validation": self.held_out, "train": ~self.held_out}[split]
        return kept.nonzero().flatten()

    def batches(self, *, split: Split = "all", batch_size: int) -> Iterator[PairedBatch]:
        """Rows in document order."""
        for rows in self.rows(split).split(batch_size):
            yield self._batch(rows)

    def document_of(self, rows: Int[Tensor, " row"]) -> Int[Tensor, " row"]:
        """Document of each row."""
        return self.document[rows]

    def batches_of(self, rows: Int[Tensor, " row"], *, batch_size: int) -> Iterator[PairedBatch]:
        """The given rows in document order."""
        for part in rows.sort().values.split(batch_size):
            yield self._batch(part)

    def training_batch(self, number: int, *, seed: int, batch_size: int) -> PairedBatch:
        """Batch `number` of a stream that reshuffles every epoch."""
        rows = self.rows("train")
        per_epoch = len(rows) // batch_size
        epoch, place = divmod(number, per_epoch)
        generator = torch.Generator().manual_seed((seed << 20) + epoch)
        order = torch.randperm(len(rows), generator=generator)
        return self._batch(rows[order[place * batch_size : (place + 1) * batch_size]])

    def _batch(self, rows: Tensor) -> PairedBatch:
        template = torch.zeros(len(rows), dtype=torch.bool)
        return PairedBatch(stored=self.x[rows], row=rows, document=self.document[rows], template=template)
