"""A crosscoder that cannot be made while its pair has others: the comparison goes on without it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from crossdiff.config import Experiment
from crossdiff.pipeline.plan import plan
from crossdiff.pipeline.steps import Step

OF_ONE_CROSSCODER = ("train", "scale", "documents")
"""Stages whose steps serve one crosscoder, whose name is the step's label."""


def without_failed(experiments: Sequence[Experiment], failed: Step) -> list[Experiment] | None:
    """The experiments without the crosscoder of a step that failed; None where one of them needs it.

    Only experiments whose plan has the step change: `comparison.without` names the crosscoder from then on.
    """
    changed = []
    for experiment in experiments:
        if failed.key not in {step.key for step in plan(experiment)}:
            changed.append(experiment)
            continue
        comparison = experiment.comparison
        if comparison is None or not _has_others(experiment, failed):
            return None
        smaller = comparison.model_copy(update={"without": (*comparison.without, failed.label)})
        changed.append(experiment.model_copy(update={"comparison": smaller}))
    return changed


def _has_others(experiment: Experiment, failed: Step) -> bool:
    """Whether the step serves one crosscoder of a pair that has others left."""
    if experiment.study is not None or failed.stage not in OF_ONE_CROSSCODER:
        return False
    groups = [[member.name for member in members] for members in experiment.members.values()]
    return any(failed.label in names and len(names) > 1 for names in groups)


def tell_failed(failed: Step, error: Exception) -> None:
    """Say on stderr which crosscoder is left out, why, and that the results name it."""
    print(
        f"warning: {failed.name} failed: {error}\n"
        f"         the comparison goes on without {failed.label}, and its results say so; "
        f"'comparison.without=[{failed.label}]' asks for the same at once",
        file=sys.stderr,
        flush=True,
    )
