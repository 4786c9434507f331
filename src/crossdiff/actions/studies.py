"""The studies, their cost and their state."""

from __future__ import annotations

from collections.abc import Sequence

from crossdiff.config import Experiment


def perform(experiments: Sequence[Experiment]) -> int:
    """Not built yet."""
    raise ValueError("action=studies is not built yet; available: run, plan, status")
