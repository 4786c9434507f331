"""`action=render`: the report again, from finished artifacts alone; nothing is computed, nothing is run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from crossdiff.actions.report_parts import ReportParts, report_parts
from crossdiff.config import Experiment
from crossdiff.pipeline.results import publish_results
from crossdiff.stages import report


def perform(experiments: Sequence[Experiment]) -> int:
    """Write the page, summary and products of every grid point into its results folder.

    A run that is not finished gets a page of what is there; the missing steps are printed and on the page.
    """
    for experiment in experiments:
        parts = report_parts(experiment)
        if parts.missing:
            print(f"not finished, so not on the page: {', '.join(parts.missing)}", flush=True)
        print(f"report: {rendered(experiment, parts)}", flush=True)
    return 0


def rendered(experiment: Experiment, parts: ReportParts) -> Path:
    """Write the page and its products into the results folder; returns the page's path."""
    start = time.perf_counter()
    with TemporaryDirectory(prefix="crossdiff-render-") as folder:
        report.write(parts.sources(), parts.inputs, parts.parents, Path(folder))
        rows = _rows(parts, experiment, seconds=time.perf_counter() - start)
        return publish_results(Path(folder), experiment.results, rows)


def _rows(parts: ReportParts, experiment: Experiment, *, seconds: float) -> list[dict[str, object]]:
    """The steps of summary.json: what was read is `reused`, the report itself is `done`."""
    rows: list[dict[str, object]] = [
        {"name": step.name, "key": step.key, "state": "reused", "seconds": 0.0}
        for step in parts.steps[:-1]
        if step.is_finished(experiment.store)
    ]
    last = parts.steps[-1]
    return [*rows, {"name": last.name, "key": last.key, "state": "done", "seconds": round(seconds, 3)}]
