"""Results of many runs side by side."""

from __future__ import annotations

from collections.abc import Sequence

from crossdiff.config import Experiment


def perform(experiments: Sequence[Experiment]) -> int:
    """Not built yet."""
    raise ValueError("action=compare is not built yet; available: run, plan, status")
