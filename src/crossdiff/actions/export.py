"""Write figures, tables, annotations or a checkpoint for use elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from crossdiff.config import Experiment


def perform(experiments: Sequence[Experiment]) -> int:
    """Export what `export.what` asks for from finished steps; returns the exit code."""
    match experiments[0].export.what:
        case "checkpoint":
            from crossdiff.actions.export_checkpoint import export_checkpoints

            return export_checkpoints(experiments)
        case "annotations":
            from crossdiff.actions.export_annotations import export_annotations

            return export_annotations(experiments)
        case "figures" | "tables":
            from crossdiff.actions.export_report import export_report

            return export_report(experiments)
