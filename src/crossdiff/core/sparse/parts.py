"""Around the sparse step: seconds spent in its named parts, and memory that lives from step to step."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_collected: ContextVar[dict[str, float] | None] = ContextVar("parts", default=None)


@contextmanager
def part(name: str) -> Iterator[None]:
    """Time the block under `name`, where somebody collects."""
    found = _collected.get()
    start = time.perf_counter()
    yield
    if found is not None:
        wait()
        found[name] = found.get(name, 0.0) + time.perf_counter() - start


def wait() -> None:
    """Until a GPU, where there is one, has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@contextmanager
def collect() -> Iterator[dict[str, float]]:
    """Collect the parts of all steps in the block."""
    found: dict[str, float] = {}
    token = _collected.set(found)
    yield found
    _collected.reset(token)


class Scratch:
    """Uninitialised matrices by name; taking a name again gives the same memory again.

    The pages of a fresh matrix cost as much as the arithmetic on it.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[str, torch.dtype, str], Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """A contiguous matrix with the type and device of `like`."""
        size, key = math.prod(shape), (name, like.dtype, str(like.device))
        held = self._held.get(key)
        if held is None or held.numel() < size:
            self._held[key] = held = like.new_empty(size)
        return held[:size].view(shape)
