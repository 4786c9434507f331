"""Activations of the same tokens in every model, and the memory that successive batches reuse."""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor


@dataclass(frozen=True)
class PairedBatch:
    """Activations of the same tokens in every model."""

    stored: Shaped[Tensor, "token model d_model"]
    """Raw activation units in the number format of the harvest (int8 rows decoded to float32).

    This is what travels to a device; arithmetic is done on `x`.
    """
    row: Int[Tensor, " token"]
    """Index of the token in the token set."""
    document: Int[Tensor, " token"]
    template: Bool[Tensor, " token"]
    """Whether the token is a control token of the chat template."""

    @property
    def x(self) -> Float[Tensor, "token model d_model"]:
        """Raw activation units, float32; converted at every call where the harvest is narrower."""
        return self.stored.float()

    def activations_on(self, device: torch.device | str) -> PairedBatch:
        """The same batch with its activations on a device; CUDA has read pageable memory when it returns."""
        return replace(self, stored=self.stored.to(device, non_blocking=True))

    def to(self, device: torch.device | str) -> PairedBatch:
        """The same batch with everything on a device."""
        parts = (self.stored, self.row, self.document, self.template)
        return PairedBatch(*(part.to(device, non_blocking=True) for part in parts))


class BatchMemory:
    """Gives out memory for batches and takes it back when the last view of a batch is gone.

    Fresh memory of this size is cleared by the kernel page by page, which takes longer than filling it.
    """

    def __init__(self, *, keep: int = 2) -> None:
        self.keep = keep
        self._free: list[np.ndarray] = []

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """An uninitialised tensor; no other tensor that is still in use shares its memory."""
        n_bytes = math.prod(shape) * dtype.itemsize
        memory = self._free.pop() if self._free else np.empty(0, np.uint8)
        if memory.nbytes < n_bytes:
            memory = np.empty(n_bytes, np.uint8)
        lent = memory[:n_bytes]  # torch holds this array for as long as any view of the tensor lives
        weakref.finalize(lent, self._take_back, memory).atexit = False
        return torch.from_numpy(lent).view(dtype).view(shape)

    def _take_back(self, memory: np.ndarray) -> None:
        if len(self._free) < self.keep:
            self._free.append(memory)
