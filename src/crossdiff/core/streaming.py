"""Mergeable state for a pass over a corpus: document hashes and groups, distinct counts, sums per latent."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from crossdiff.core.explained_variance import FitSums

N_GROUPS = 20
PAIRS_IN_MEMORY = 4_000_000


def mix(number: Int[Tensor, "*shape"], *, salt: int = 0) -> Int[Tensor, "*shape"]:
    """splitmix64 of `number + salt`: a stable hash, the same on every machine, in [0, 2^63)."""
    value = number.long() + _signed(0x9E3779B97F4A7C15 * (salt + 1))
    value = (value ^ _shift(value, 30)) * _signed(0xBF58476D1CE4E5B9)
    value = (value ^ _shift(value, 27)) * _signed(0x94D049BB133111EB)
    return (value ^ _shift(value, 31)) & 0x7FFF_FFFF_FFFF_FFFF


def document_group(document: Int[Tensor, " token"], *, n_groups: int = N_GROUPS) -> Int[Tensor, " token"]:
    """Group of each document for the delete-a-group jackknife: `mix(document) mod n_groups`.

    A hash and no plain remainder, because corpora alternate (web, chat, web, chat, ...).
    """
    return mix(document) % n_groups


@dataclass
class DocumentCounts:
    """Number of distinct documents in which each latent was active.

    Exact for tokens in any order up to `PAIRS_IN_MEMORY` (latent, document) pairs. Beyond that the pairs of
    finished documents are counted and dropped, which is exact in corpus order, also after merging
    neighbouring parts of a corpus.
    """

    n_latents: int
    settled: Int[Tensor, " latent"] = field(init=False)
    pairs: list[Tensor] = field(default_factory=list)
    first: Int[Tensor, " document"] | None = None
    last: Int[Tensor, " document"] | None = None

    def __post_init__(self) -> None:
        self.settled = torch.zeros(self.n_latents, dtype=torch.int64)

    def add(self, latent: Int[Tensor, " active"], document: Int[Tensor, " active"]) -> None:
        """Record that `latent` was active in `document`, entry by entry."""
        key = (document.long() * self.n_latents + latent).cpu()
        self.last = document.unique().cpu()
        if self.first is None:
            self.first = self.last
        self.pairs.append(key.unique())
        self._shrink()

    def merge(self, other: DocumentCounts) -> None:
        """Add the counts of a pass over other tokens of the corpus."""
        self.settled += other.settled
        self.pairs += other.pairs
        self.first = _union(self.first, other.first)
        self.last = _union(self.last, other.last)
        self._shrink()

    def counts(self) -> Int[Tensor, " latent"]:
        """Distinct documents per latent."""
        return self.settled + self._of(self._open())

    def _open(self) -> Tensor:
        joined = torch.cat(self.pairs).unique() if self.pairs else torch.zeros(0, dtype=torch.int64)
        self.pairs = [joined]
        return joined

    def _of(self, keys: Tensor) -> Tensor:
        return torch.bincount(keys % self.n_latents, minlength=self.n_latents)

    def _shrink(self) -> None:
        if sum(len(keys) for keys in self.pairs) <= PAIRS_IN_MEMORY:
            return
        keys = self._open()
        if len(keys) <= PAIRS_IN_MEMORY // 2 or self.first is None or self.last is None:
            return
        keep = torch.isin(keys // self.n_latents, torch.cat([self.first, self.last]))
        self.settled += self._of(keys[~keep])
        self.pairs = [keys[keep]]


def _union(left: Tensor | None, right: Tensor | None) -> Tensor | None:
    if left is None or right is None:
        return left if right is None else right
    return torch.cat([left, right]).unique()


def _signed(number: int) -> int:
    number &= 0xFFFF_FFFF_FFFF_FFFF
    return number - (1 << 64) if number >= 1 << 63 else number


def _shift(value: Tensor, bits: int) -> Tensor:
    """Logical right shift (torch's `>>` on int64 keeps the sign)."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


Kind = TypeVar("Kind", bound="PassSums")
"""A kind of sums; `typing.Self` is no hint that the shape checker of the tests reads here."""


class PassSums:
    """Base of dataclasses of sums; `ADDED` names the tensors that add up over passes.

    The annotations are those that a subclass declares as fields.
    """

    device: torch.device | str
    n_tokens: int
    maximum: Float64[Tensor, " latent"]
    documents: DocumentCounts
    fit: FitSums | None

    ADDED: ClassVar[tuple[str, ...]]

    def merge(self: Kind, other: Kind) -> None:
        """Add the sums of a pass over other tokens; equals one pass over both up to rounding."""
        self.n_tokens += other.n_tokens
        for name in self.ADDED:
            getattr(self, name).add_(getattr(other, name))
        self.maximum = torch.maximum(self.maximum, other.maximum)
        self.documents.merge(other.documents)
        if self.fit is None or other.fit is None:
            self.fit = self.fit or other.fit
        else:
            self.fit.merge(other.fit)

    def to(self: Kind, device: torch.device | str) -> Kind:
        """The sums on a device."""
        moved = copy.copy(self)
        moved.device = device
        for name in (*self.ADDED, "maximum"):
            setattr(moved, name, getattr(self, name).to(device))
        moved.fit = None if self.fit is None else self.fit.to(device)
        return moved
