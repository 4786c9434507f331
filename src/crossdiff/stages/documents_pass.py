"""The pass of the documents stage over the corpus: peaks, samples and histograms of the chosen latents.

On several devices each process reads neighbouring batches, the same ones that a single process would read,
and the parts are merged: the order of documents decides between equal peaks, not the order of merging.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from crossdiff.core.codes import CodeHistogram
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.documented_latents import (
    Chosen,
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
from crossdiff.training.nodes import check_gpus, device_of
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


@dataclass(frozen=True)
class Asked:
    """The latents whose documents are wanted, how many documents, and the tokens of a batch."""

    latents: tuple[int, ...]
    settings: DocumentsSettings
    batch_size: int

    @classmethod
    def of(cls, chosen: Chosen, settings: DocumentsSettings, batch_size: int) -> Asked:
        """Of the latents that were chosen."""
        return cls(tuple(latent for latent, _ in chosen.latents), settings, batch_size)


def pass_over_corpus(
    opened: Opened, open_both: Callable[[str], Opened], asked: Asked, runtime: Runtime
) -> Found:
    """One pass in which only the chosen latents are encoded, on one device or shared over several.

    With several, `open_both` (picklable) is called in every process with its device.
    """
    if runtime.n_devices == 1 or not asked.latents:
        return pass_over_part(*opened, asked, progress=runtime.progress)
    n_parts, (_, activations) = runtime.n_devices, opened
    check_gpus(runtime.device, n_parts, setting="dispatch.devices")
    arguments = (open_both, asked, runtime.device, n_parts, runtime.progress)
    found, *rest = parts = in_every_rank(_part, arguments, n_ranks=n_parts)
    for other in rest:
        found.histogram.counts.add_(other.histogram.counts)
        _merge(found.reservoirs, other.reservoirs)
    offer = Offer.of(asked.settings.empty_reservoirs(len(asked.latents)), activations, asked.settings)
    for peaks in whole_documents(peaks for part in parts for peaks in part.shared):
        offer.add(peaks)
    _merge(found.reservoirs, offer.reservoirs)
    return found


def pass_over_part(
    crosscoder: Crosscoder,
    activations: PairedActivations,
    asked: Asked,
    *,
    part: int = 0,
    n_parts: int = 1,
    progress: bool = False,
) -> Found:
    """A pass over all batches, or over one part of them.

    Tokens without text or documents (imported activations) leave the reservoirs empty.
    """
    latents, batch_size = torch.tensor(asked.latents, dtype=torch.int64), asked.batch_size
    found = Found(CodeHistogram.empty(len(latents)), asked.settings.empty_reservoirs(len(latents)))
    if not asked.latents:
        return found
    offer = Offer.of(found.reservoirs, activations, asked.settings)
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
            code = codes_of(crosscoder, batch.activations_on(crosscoder.decoder.device).x, latents).cpu()
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


def _merge(into: Reservoirs, other: Reservoirs) -> None:
    """Take over the documents of another part of the corpus."""
    for subset, reservoirs in other.items():
        into[subset].top.merge(reservoirs.top)
        into[subset].sample.merge(reservoirs.sample)


def _part(
    rank: int, open_both: Callable[[str], Opened], asked: Asked, device: str, n_parts: int, progress: bool
) -> Found:
    crosscoder, activations = open_both(device_of(device, rank))
    shown = progress and rank == 0
    return pass_over_part(crosscoder, activations, asked, part=rank, n_parts=n_parts, progress=shown)
