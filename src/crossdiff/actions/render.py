"""Render a report again from finished artifacts."""

from __future__ import annotations

from collections.abc import Sequence

from crossdiff.config import Experiment


def perform(experiments: Sequence[Experiment]) -> int:
    """Not built yet."""
    raise ValueError("action=render is not built yet; available: run, plan, status")
