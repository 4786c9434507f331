"""What is finished of an experiment's report: artifacts to read, inputs of the page, steps still to come."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from crossdiff.config import Experiment
from crossdiff.pipeline.plan import plan
from crossdiff.pipeline.steps import Step
from crossdiff.report.human_check import read_agreement
from crossdiff.report.sources import Sources, read_sources
from crossdiff.stages.report import ReportInputs

NEEDED = ("train", "scale")
"""Stages without which a pair has nothing to show."""


@dataclass(frozen=True)
class ReportParts:
    """The finished parents of a report by role, its inputs cut to the pairs that can be shown."""

    inputs: ReportInputs
    parents: dict[str, Path]
    steps: list[Step]
    missing: list[str]
    results: Path

    def sources(self) -> Sources:
        """The artifacts, read, and the human check where the results folder holds one."""
        asked = self.inputs
        found = read_sources(
            self.parents, pairs=asked.pairs, reference=asked.reference, treatment=asked.treatment
        )
        annotate = next(step.key for step in self.steps if step.stage == "annotate")
        return replace(found, human_check=read_agreement(self.results, annotate=annotate))


def report_parts(experiment: Experiment) -> ReportParts:
    """Everything that is finished; ValueError where not even one pair has its latent table."""
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
