"""A comparison continues without a crosscoder that failed, where its pair has others."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from crossdiff.config import Experiment
from crossdiff.pipeline.plan import plan
from crossdiff.pipeline.steps import PER_CROSSCODER, Step


def without_failed(experiments: Sequence[Experiment], failed: Sequence[Step]) -> list[Experiment] | None:
    """The experiments without the crosscoders of the failed steps; None where an experiment needs one.

    `comparison.without` then names the crosscoder, in the experiments whose plan has the failed step.
    None where nothing would change, so that the same plan never runs twice.
    """
    changed = list(experiments)
    for step in failed:
        needing = [n for n, one in enumerate(changed) if step.key in {other.key for other in plan(one)}]
        for n in needing:
            comparison = changed[n].comparison
            if comparison is None or not _has_others(changed[n], step):
                return None
            smaller = comparison.model_copy(update={"without": (*comparison.without, step.label)})
            changed[n] = changed[n].model_copy(update={"comparison": smaller})
    return changed if changed != list(experiments) else None


def _has_others(experiment: Experiment, failed: Step) -> bool:
    """Whether the step belongs to one crosscoder of a pair that has others."""
    if experiment.study is not None or failed.stage not in PER_CROSSCODER:
        return False
    groups = [[member.name for member in members] for members in experiment.members.values()]
    return any(failed.label in names and len(names) > 1 for names in groups)


def tell_failed(failed: Step, error: Exception) -> None:
    """Print on stderr which crosscoder is left out, and why."""
    print(
        f"warning: {failed.name} failed: {error}\n"
        f"         the comparison continues without {failed.label}, and its results say so; "
        f"'comparison.without=[{failed.label}]' asks for the same at once",
        file=sys.stderr,
        flush=True,
    )
