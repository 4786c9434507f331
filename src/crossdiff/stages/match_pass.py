"""The pass of the match stage: two pairs opened on the same tokens, and how their codes correlate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from crossdiff.core.codes import SparseCode
from crossdiff.core.exclusive_call import exclusive_latents
from crossdiff.core.matching import CodeCorrelation
from crossdiff.core.streaming import mix
from crossdiff.data.settings import MaskSettings
from crossdiff.io.tables import read_table
from crossdiff.stages.activations import open_activations, open_crosscoder
from crossdiff.training.nodes import check_gpus, device_of
from crossdiff.training.ranks import in_every_rank

if TYPE_CHECKING:
    import pandas as pd

    from crossdiff.core.crosscoder import Crosscoder
    from crossdiff.data.paired_activations import PairedActivations

CHUNK = 4096
"""Tokens that are encoded at a time."""
Sums = tuple[CodeCorrelation, CodeCorrelation]


@dataclass(frozen=True)
class PairFiles:
    """Where a pair's artifacts and the tokens lie, by role, and what is looked for."""

    parents: Mapping[str, Path]
    layer: int
    mask: MaskSettings
    max_latents: int

    def open(self, device: str) -> MatchedPair:
        """The pair, on this device."""
        activations = open_activations(self.parents, self.layer, self.mask, device=device)
        crosscoder = open_crosscoder(self.parents, activations).to(device)
        table = read_table(self.parents["scale"] / "latents.parquet", kind="latents")
        exclusive = torch.tensor(exclusive_latents(table, "tuned"), dtype=torch.int64)
        kept = exclusive[: self.max_latents]
        crosscoder.requires_grad_(requires_grad=False)
        return MatchedPair(activations, crosscoder, table, kept, len(exclusive) - len(kept))


@dataclass(frozen=True)
class MatchedPair:
    """One pair: its activations, crosscoder and latent table, and the latents that are looked for."""

    activations: PairedActivations
    crosscoder: Crosscoder
    table: pd.DataFrame
    exclusive: torch.Tensor
    n_left_out: int

    @property
    def alive(self) -> torch.Tensor:
        """Which latents were ever active."""
        return torch.tensor((self.table["n_active"] > 0).to_numpy())

    def code(self, rows: torch.Tensor) -> SparseCode:
        """The codes of some rows, on the CPU."""
        x = self.activations.read(rows).x.to(self.crosscoder.decoder.device)
        found = self.crosscoder.encode_normalised(self.crosscoder.normaliser.normalise(x))
        token, latent, value = found.token.cpu(), found.latent.cpu(), found.value.cpu()
        return SparseCode(token, latent, value, found.n_tokens, found.n_latents)


def shared_rows(first: PairedActivations, second: PairedActivations, *, n_tokens: int) -> torch.Tensor:
    """Rows that both pairs keep, at most `n_tokens`, of whole documents (of one, if even that is longer).

    Documents are taken in the order of a hash, because corpora alternate (web, chat, web, chat, ...) and
    every n-th document can be of one source only.
    """
    rows = (first.kept & second.kept).nonzero().flatten()
    document, of_row, length = torch.unique_consecutive(
        first.token_set.document_of(rows), return_inverse=True, return_counts=True
    )
    order = mix(document).argsort()
    fits = length[order].cumsum(0) <= n_tokens
    fits[:1] = True
    chosen = torch.zeros_like(fits)
    chosen[order] = fits
    return rows[chosen[of_row]]


def correlations(first: MatchedPair, second: MatchedPair, rows: torch.Tensor) -> Sums:
    """Correlations of each pair's exclusive latents with all latents of the other, in one pass."""
    n = (first.crosscoder.n_latents, second.crosscoder.n_latents)
    sums = (CodeCorrelation(first.exclusive, n[0], n[1]), CodeCorrelation(second.exclusive, n[1], n[0]))
    for part in rows.split(CHUNK):
        codes = (first.code(part), second.code(part))
        sums[0].add(codes[0], codes[1])
        sums[1].add(codes[1], codes[0])
    return sums


def correlations_on_devices(
    first: PairFiles, second: PairFiles, rows: torch.Tensor, *, device: str, n_devices: int
) -> Sums:
    """The same by a process per device, each over neighbouring rows; equal to one pass, to rounding.

    Every process holds its own sums, exclusive latents x all latents of the other pair in float64, twice.
    """
    check_gpus(device, n_devices, setting="dispatch.devices")
    arguments = (first, second, rows, device, n_devices)
    whole, *others = in_every_rank(_part, arguments, n_ranks=n_devices)
    for other in others:
        for sums, more in zip(whole, other, strict=True):
            sums.merge(more)
    return whole


def _part(
    rank: int, first: PairFiles, second: PairFiles, rows: torch.Tensor, device: str, n_parts: int
) -> Sums:
    own = device_of(device, rank)
    cuts = [len(rows) * cut // n_parts for cut in (rank, rank + 1)]
    return correlations(first.open(own), second.open(own), rows[slice(*cuts)])
