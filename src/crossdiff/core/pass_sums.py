"""What the sums of a pass over tokens have in common, whatever they add up: they merge and move."""

from __future__ import annotations

import copy
from typing import ClassVar, TypeVar

import torch
from jaxtyping import Float64
from torch import Tensor

from crossdiff.core.explained_variance import FitSums
from crossdiff.core.streaming import DocumentCounts

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
