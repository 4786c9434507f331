"""The latents whose documents are read, and what a pass remembers of their documents: peaks and samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from crossdiff.core.codes import Activations
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.drift import drifted
from crossdiff.core.exclusive_call import Side, exclusive_latents
from crossdiff.core.streaming import mix

if TYPE_CHECKING:
    import pandas as pd


Role = Literal[
    "exclusive_tuned", "exclusive_base", "control_shared", "drifted", "effect_up", "effect_down"
]  # fmt: skip
ROLES: tuple[Role, ...] = ("exclusive_tuned", "exclusive_base", "control_shared")
"""Of every run but that of a diff_sae; `drifted` latents are there where they are asked for."""
EFFECT_ROLES: tuple[Role, ...] = ("effect_up", "effect_down")
"""Of the latents of a diff_sae, by the sign of their effect."""


@dataclass(frozen=True)
class Chosen:
    """(latent, role) by role and number; `not_taken` counts exclusive latents beyond the limit."""

    latents: list[tuple[int, Role]]
    not_taken: dict[str, int]


def choose_latents(
    table: pd.DataFrame, *, n_controls: int, max_latents: int, seed: int, n_drifted: int = 0
) -> Chosen:
    """Exclusive latents of both sides (at most `max_latents` each), random shared controls, drifted latents.

    Controls have norms in the shared bin and the call not_exclusive, so both the norms and latent scaling
    attribute them to both models. A control among the `n_drifted` most drifted latents stays a control. Of a
    diff_sae only latents with a sign are taken, up and down.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen: list[tuple[int, Role]] = []
    not_taken: dict[str, int] = {}
    for side, role, latents in _of_interest(table):
        taken = _draw(latents, max_latents, generator)
        not_taken[side] = len(latents) - len(taken)
        chosen.extend((latent, role) for latent in taken)
    shared = (table["kind"] == "shared") & (table["call"] == "not_exclusive")
    controls = [j for j, is_shared in enumerate(shared) if is_shared]
    chosen.extend((latent, "control_shared") for latent in _draw(controls, n_controls, generator))
    if "sign" in table or not n_drifted:
        return Chosen(chosen, not_taken)
    _check_intervals(table)
    taken = {latent for latent, _ in chosen}
    chosen.extend((n, "drifted") for n in drifted(table).latents[:n_drifted] if n not in taken)
    return Chosen(chosen, not_taken)


def _check_intervals(table: pd.DataFrame) -> None:
    """ValueError where drifted latents are asked of an older table, whose order would be another one."""
    if "drift_low" not in table:
        raise ValueError(
            "documents.n_drifted takes the surest drift first, and this latent table was written before "
            "drift had intervals; make the step `scale` again (delete its folder, or give another store=), "
            "or give documents.n_drifted=0"
        )


def _of_interest(table: pd.DataFrame) -> list[tuple[str, Role, list[int]]]:
    """What the counts of latents that are not taken are called, the role, and the latents."""
    if "sign" in table:
        of_sign = {sign: [j for j, own in enumerate(table["sign"]) if own == sign] for sign in ("up", "down")}
        return [("up", "effect_up", of_sign["up"]), ("down", "effect_down", of_sign["down"])]
    sides: tuple[tuple[Side, Role], ...] = (("tuned", "exclusive_tuned"), ("base", "exclusive_base"))
    return [(side, role, exclusive_latents(table, side)) for side, role in sides]


def codes_of(
    crosscoder: Crosscoder, x: Activations, latents: Int[Tensor, " chosen"]
) -> Float[Tensor, "token chosen"]:
    """Inference codes (`v > threshold`) of some latents of raw activations."""
    device = crosscoder.decoder.device
    latents = latents.to(device)
    xn = crosscoder.normaliser.normalise(crosscoder.inputs(x.to(device, crosscoder.decoder.dtype)))
    with torch.no_grad():
        code = crosscoder.positive_code(xn, latents)
        return torch.where(code * crosscoder.code_norm()[latents] > crosscoder.threshold, code, 0)


def _draw(latents: list[int], count: int, generator: torch.Generator) -> list[int]:
    if len(latents) <= count:
        return latents
    order = torch.randperm(len(latents), generator=generator)[:count]
    return sorted(latents[i] for i in order.tolist())


@dataclass(frozen=True)
class Peaks:
    """Finished documents: the largest code of each latent (0: never active) and the row of that token."""

    document: Int[Tensor, " document"]
    peak: Float[Tensor, "document latent"]
    row: Int[Tensor, "document latent"]

    def of(self, which: Bool[Tensor, " document"]) -> Peaks:
        """Some of the documents."""
        return Peaks(self.document[which], self.peak[which], self.row[which])


def document_peaks(
    batches: Iterable[tuple[Float[Tensor, "token latent"], Int[Tensor, " token"], Int[Tensor, " token"]]],
) -> Iterator[Peaks]:
    """Peaks of each document from batches `(code, document, row)` in corpus order.

    A document that continues in the next batch is held back until it ends.
    """
    return whole_documents(_of_batch(*batch) for batch in batches if len(batch[1]))


def whole_documents(pieces: Iterable[Peaks]) -> Iterator[Peaks]:
    """The same from peaks of pieces of the corpus in its order, each with a document or more."""
    held: Peaks | None = None
    for piece in pieces:
        found = _joined(held, piece)
        yield Peaks(found.document[:-1], found.peak[:-1], found.row[:-1])
        held = Peaks(found.document[-1:], found.peak[-1:], found.row[-1:])
    if held is not None:
        yield held


def _of_batch(code: Tensor, document: Tensor, row: Tensor) -> Peaks:
    names, lengths = torch.unique_consecutive(document, return_counts=True)
    tops = [part.max(dim=0) for part in code.split(lengths.tolist())]
    starts = lengths.cumsum(0) - lengths
    place = torch.stack([top.indices for top in tops]) + starts[:, None]
    return Peaks(names, torch.stack([top.values for top in tops]), row[place])


def _joined(held: Peaks | None, new: Peaks) -> Peaks:
    if held is None:
        return new
    if held.document[0] != new.document[0]:
        document = torch.cat([held.document, new.document])
        return Peaks(document, torch.cat([held.peak, new.peak]), torch.cat([held.row, new.row]))
    keep = held.peak[0] >= new.peak[0]
    peak, row = new.peak.clone(), new.row.clone()
    peak[0] = torch.where(keep, held.peak[0], peak[0])
    row[0] = torch.where(keep, held.row[0], row[0])
    return Peaks(new.document, peak, row)


@dataclass
class Reservoir:
    """The `size` documents of highest priority per latent, best first; memory O(latents x size).

    Equal priorities keep the earlier document, so the content depends on the corpus order only. Empty places
    have priority -inf and document -1.
    """

    n_latents: int
    size: int
    priority: Float64[Tensor, "place latent"] = field(init=False)
    document: Int[Tensor, "place latent"] = field(init=False)
    peak: Float64[Tensor, "place latent"] = field(init=False)
    row: Int[Tensor, "place latent"] = field(init=False)

    def __post_init__(self) -> None:
        shape = (self.size, self.n_latents)
        self.priority = torch.full(shape, -torch.inf, dtype=torch.float64)
        self.document = torch.full(shape, -1)
        self.peak = torch.zeros(shape, dtype=torch.float64)
        self.row = torch.full(shape, -1)

    def add(self, peaks: Peaks, priority: Float64[Tensor, "document latent"]) -> None:
        """Add documents; a latent keeps only documents in which it was active."""
        active = peaks.peak > 0
        document = peaks.document[:, None].expand_as(peaks.row)
        priority = torch.where(active, priority, -torch.inf)
        joined = torch.cat([self.priority, priority])
        self.priority, order = (
            part[: self.size] for part in joined.sort(dim=0, descending=True, stable=True)
        )
        for name, new in (("document", document), ("peak", peaks.peak.double()), ("row", peaks.row)):
            setattr(self, name, torch.cat([getattr(self, name), new]).gather(0, order))

    def merge(self, other: Reservoir) -> None:
        """Take over what another has taken of other documents of the same corpus, in any order."""
        columns = {
            name: torch.cat([getattr(self, name), getattr(other, name)])
            for name in ("priority", "document", "peak", "row")
        }
        by_document = columns["document"].argsort(dim=0, stable=True)
        priority = columns["priority"].gather(0, by_document)
        order = by_document.gather(0, priority.argsort(dim=0, descending=True, stable=True))[: self.size]
        for name, column in columns.items():
            setattr(self, name, column.gather(0, order))

    def entries(self, latent: int) -> list[Entry]:
        """Kept documents of one latent, by falling priority."""
        taken = self.priority[:, latent] > -torch.inf
        columns = (self.document, self.row, self.peak)
        return [Entry(*values) for values in zip(*(c[taken, latent].tolist() for c in columns), strict=True)]


@dataclass(frozen=True)
class Entry:
    """A document of one latent: index, token row of the peak, code at the peak."""

    document: int
    row: int
    peak: float


@dataclass
class ExampleReservoirs:
    """Documents of one subset (explain or score): highest peaks, and a uniform sample of active ones."""

    top: Reservoir
    sample: Reservoir

    @classmethod
    def empty(cls, n_latents: int, *, n_top: int, n_sample: int) -> ExampleReservoirs:
        """Reservoirs without documents."""
        return cls(Reservoir(n_latents, n_top), Reservoir(n_latents, n_sample))

    def add(self, peaks: Peaks, *, mine: Bool[Tensor, " document"], hashes: Int[Tensor, " document"]) -> None:
        """Offer the documents of this subset; `hashes` (of the document ids) make the uniform sample."""
        chosen = peaks.of(mine)
        if len(chosen.document) == 0:
            return
        self.top.add(chosen, chosen.peak.double())
        latents = torch.arange(chosen.peak.shape[1])
        draw = mix(hashes[mine][:, None] ^ mix(latents, salt=1)[None, :])
        self.sample.add(chosen, draw.double())
