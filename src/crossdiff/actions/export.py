"""Write figures, tables, annotations or a checkpoint for use elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from crossdiff.config import Experiment


def perform(experiments: Sequence[Experiment]) -> int:
    """Export what `export.what` asks for from finished steps; returns the exit code."""
    what = experiments[0].export.what
    match what:
        case "checkpoint":
            from crossdiff.actions.export_checkpoint import export_checkpoints

            return export_checkpoints(experiments)
        case "annotations":
            from crossdiff.actions.export_annotations import export_annotations

            return export_annotations(experiments)
        case _:
            raise ValueError(f"export.what={what} is not built yet; available: annotations, checkpoint")
