"""Write figures, tables, annotations or a checkpoint for use elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from crossdiff.config import Experiment


def perform(experiments: Sequence[Experiment]) -> int:
    """Not built yet."""
    raise ValueError("action=export is not built yet; available: run, plan, status")
