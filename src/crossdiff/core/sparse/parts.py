"""Seconds spent in the named parts of a step, collected only inside `collect`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

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
