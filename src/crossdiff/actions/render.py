"""`action=render`: the report, written again from finished artifacts; no step runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from crossdiff.config import Experiment
from crossdiff.pipeline.plan import plan
from crossdiff.pipeline.results import publish_results
from crossdiff.pipeline.steps import Step
from crossdiff.report.human_check import read_agreement
from crossdiff.report.sources import Sources, read_sources
from crossdiff.stages import report
from crossdiff.stages.report import ReportInputs


def perform(experiments: Sequence[Experiment]) -> int:
    """Write the page, summary and products of every grid point into its results folder.

    The page of an unfinished run shows its finished steps; the missing ones are printed and on the page.
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
        return publish_results(Path(folder), experiment.results, rows, store=experiment.store)


def _rows(parts: ReportParts, experiment: Experiment, *, seconds: float) -> list[dict[str, object]]:
    """The steps for summary.json: `reused` for finished ones, `done` for the report."""
    rows: list[dict[str, object]] = [
        {"name": step.name, "key": step.key, "state": "reused", "seconds": 0.0}
        for step in parts.steps[:-1]
        if step.is_finished(experiment.store)
    ]
    last = parts.steps[-1]
    return [*rows, {"name": last.name, "key": last.key, "state": "done", "seconds": round(seconds, 3)}]


NEEDED = ("train", "scale")
"""Stages that a pair needs to be shown."""


@dataclass(frozen=True)
class ReportParts:
    """A report's inputs, for the pairs that can be shown, and its finished parents by role."""

    inputs: ReportInputs
    parents: dict[str, Path]
    steps: list[Step]
    missing: list[str]
    results: Path

    def sources(self) -> Sources:
        """The artifacts' content, and the human check where the results folder has one."""
        asked = self.inputs
        report_sources = read_sources(
            self.parents,
            pairs=asked.pairs,
            reference=asked.reference,
            treatment=asked.treatment,
            members=asked.members,
        )
        annotate = next(step.key for step in self.steps if step.stage == "annotate")
        return replace(report_sources, human_check=read_agreement(self.results, annotate=annotate))


def report_parts(experiment: Experiment) -> ReportParts:
    """The parts that are finished; ValueError where no pair has a latent table."""
    steps = plan(experiment)
    report = steps[-1]
    assert isinstance(report.inputs, ReportInputs)
    finished = {role: step for role, step in report.parents.items() if step.is_finished(experiment.store)}
    pairs = tuple(
        pair for pair in report.inputs.pairs if all(f"{stage}_{pair}" in finished for stage in NEEDED)
    )
    missing = [step.name for role, step in report.parents.items() if role not in finished]
    if not pairs:
        raise ValueError(
            f"nothing to show yet in store={experiment.store}: {', '.join(missing)} not finished; "
            "give the same command with action=run first (action=plan shows every step)"
        )
    return ReportParts(
        inputs=report.inputs.model_copy(update={"pairs": pairs}),
        parents={role: step.folder(experiment.store) for role, step in finished.items()},
        steps=steps,
        missing=missing,
        results=experiment.results,
    )
