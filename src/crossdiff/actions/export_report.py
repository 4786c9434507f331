"""`action=export export.what=figures|tables`: a report's figures and tables as files for papers."""

from __future__ import annotations

from collections.abc import Sequence

from crossdiff.actions.report_parts import report_parts
from crossdiff.config import Experiment
from crossdiff.report.export import figures_of, tables_of


def export_report(experiments: Sequence[Experiment]) -> int:
    """Write `<export.folder>/<title>_<layer>/<name>.<format>` for every finished part; returns 0."""
    settings = experiments[0].export
    for experiment in experiments:
        sources = report_parts(experiment).sources()
        folder = settings.folder / f"{experiment.title}_{experiment.layer}"
        match settings.chosen_format:
            case "png" | "svg" as image_format:
                written = figures_of(sources, folder, image_format=image_format)
            case "csv" | "tex" as table_format:
                written = tables_of(sources, folder, table_format=table_format)
            case other:
                raise AssertionError(f"{other} is no format of {settings.what}")
        print(f"{settings.what}: {len(written)} {settings.chosen_format} files in {folder}", flush=True)
    return 0
