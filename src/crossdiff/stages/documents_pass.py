"""The pass of the documents stage over the corpus: peaks, samples and histograms of the chosen latents.

On several devices each process reads neighbouring batches, the same ones that a single process would read,
and the parts are merged: the order of documents decides between equal peaks, not the order of merging.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.documented_latents import (
    CodeHistogram,
    ExampleReservoirs,
    Peaks,
    codes_of,
    document_peaks,
    whole_documents,
)
from crossdiff.data.examples import document_hashes, for_scoring
from crossdiff.data.paired_activations import PairedActivations
from crossdiff.data.settings import DocumentsSettings, Subset
from crossdiff.io.progress import track
from crossdiff.settings import Runtime
from crossdiff.training.devices import check_gpus, device_of
from crossdiff.training.ranks import in_every_rank

Reservoirs = dict[Subset, ExampleReservoirs]
Opened = tuple[Crosscoder, PairedActivations]


@dataclass
class Found:
    """What a pass over one part of the corpus remembers."""

    histogram: CodeHistogram
    reservoirs: Reservoirs
    shared: list[Peaks] = field(default_factory=list)
    """Documents that begin or go on in a neighbouring part, not offered yet."""


@dataclass(frozen=True)
class Offer:
    """Puts documents into the reservoirs of the subset that each may serve."""

    reservoirs: Reservoirs
    hashes: Tensor
    scoring: Tensor

    @classmethod
    def of(cls, reservoirs: Reservoirs, activations: PairedActivations, settings: DocumentsSettings) -> Offer:
        """By the hashes of the documents' ids."""
        hashes = document_hashes(activations.token_set.document_ids, salt="examples")
        return cls(reservoirs, hashes, for_scoring(hashes, settings.score_share))

    def add(self, peaks: Peaks) -> None:
        """Offer these documents."""
        score, own = self.scoring[peaks.document], self.hashes[peaks.document]
        self.reservoirs["explain"].add(peaks, mine=~score, hashes=own)
        self.reservoirs["score"].add(peaks, mine=score, hashes=own)


def pass_over_part(
    crosscoder: Crosscoder,
    activations: PairedActivations,
    *,
    latents: Sequence[int],
    settings: DocumentsSettings,
    batch_size: int,
    part: int = 0,
    n_parts: int = 1,
    progress: bool = False,
) -> Found:
    """One pass in which only the chosen latents are encoded, over all batches or one part of them.

    Tokens without text or documents (imported activations) leave the reservoirs empty.
    """
    found = Found(CodeHistogram.empty(len(latents)), settings.empty_reservoirs(len(latents)))
    if not latents:
        return found
    chosen = torch.tensor(latents, dtype=torch.int64)
    offer = Offer.of(found.reservoirs, activations, settings)
    rows, shared = rows_of_part(activations, part, n_parts, batch_size=batch_size)
    batches = (
        activations.batches(split="all", batch_size=batch_size)
        if n_parts == 1
        else activations.batches_of(rows, batch_size=batch_size)
    )
    total = -(-len(rows) // batch_size)
    shown = track(batches, total=total, description="documents", unit="batch", enabled=progress)

    def codes() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for batch in shown:
            code = codes_of(crosscoder, batch.activations_on(crosscoder.decoder.device).x, chosen).cpu()
            found.histogram.add(code)
            if batch.document is not None and activations.token_set.can_be_shown:
                yield code, batch.document, batch.row

    for peaks in document_peaks(codes()):
        held = torch.isin(peaks.document, shared)
        offer.add(peaks.of(~held))
        if bool(held.any()):
            found.shared.append(peaks.of(held))
    return found


def rows_of_part(
    activations: PairedActivations, part: int, n_parts: int, *, batch_size: int
) -> tuple[Tensor, Tensor]:
    """Kept rows of one of `n_parts` runs of whole batches, and the documents shared with its neighbours."""
    rows = activations.rows()
    n_batches = -(-len(rows) // batch_size)
    first, end = (n_batches * cut // n_parts * batch_size for cut in (part, part + 1))
    own = rows[first:end]
    edges = [(first - 1, first), (end - 1, end)] if len(own) else []
    document = activations.document_of
    meets = [(a, b) for a, b in edges if a >= 0 and b < len(rows)]
    shared = [int(document(rows[a : a + 1])) for a, b in meets if document(rows[[a]]) == document(rows[[b]])]
    return own, torch.tensor(shared, dtype=torch.int64)


def pass_on_devices(
    open_both: Callable[[str], Opened],
    activations: PairedActivations,
    *,
    latents: Sequence[int],
    settings: DocumentsSettings,
    batch_size: int,
    runtime: Runtime,
) -> Found:
    """The whole pass by a process per device; `open_both` (picklable) is called in each, with its device."""
    n_parts, part = runtime.n_devices, {"latents": latents, "settings": settings, "batch_size": batch_size}
    check_gpus(runtime.device, n_parts, setting="dispatch.devices")
    arguments = (open_both, part, runtime.device, n_parts, runtime.progress)
    found, *rest = parts = in_every_rank(_part, arguments, n_ranks=n_parts)
    for other in rest:
        found.histogram.counts.add_(other.histogram.counts)
        _merge(found.reservoirs, other.reservoirs)
    edges = settings.empty_reservoirs(len(latents))
    offer = Offer.of(edges, activations, settings)
    for peaks in whole_documents(peaks for part in parts for peaks in part.shared):
        offer.add(peaks)
    _merge(found.reservoirs, edges)
    return found


def _merge(into: Reservoirs, other: Reservoirs) -> None:
    """Take over the documents of another part of the corpus."""
    for subset, reservoirs in other.items():
        into[subset].top.merge(reservoirs.top)
        into[subset].sample.merge(reservoirs.sample)


def _part(
    rank: int,
    open_both: Callable[[str], Opened],
    part: dict[str, Any],
    device: str,
    n_parts: int,
    progress: bool,
) -> Found:
    crosscoder, activations = open_both(device_of(device, rank))
    shown = progress and rank == 0
    return pass_over_part(crosscoder, activations, **part, part=rank, n_parts=n_parts, progress=shown)
