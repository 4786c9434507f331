"""Memory that lives from step to step: the pages of a fresh matrix cost as much as the arithmetic on it."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Scratch:
    """Uninitialised matrices by name; taking a name again gives the same memory again."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, torch.dtype, str], Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """A contiguous matrix with the type and device of `like`."""
        size, key = math.prod(shape), (name, like.dtype, str(like.device))
        held = self._held.get(key)
        if held is None or held.numel() < size:
            self._held[key] = held = like.new_empty(size)
        return held[:size].view(shape)
