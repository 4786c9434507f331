"""A crosscoder that cannot be made while its pair has others: the comparison goes on without it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from crossdiff.config import Experiment
from crossdiff.pipeline.plan import plan
from crossdiff.pipeline.steps import PER_CROSSCODER, Step


def without_failed(experiments: Sequence[Experiment], failed: Sequence[Step]) -> list[Experiment] | None:
    """The experiments without the crosscoders of the steps that failed; None where one of them needs one.

    Only experiments whose plan has such a step change: `comparison.without` then names its crosscoder.
    None too where nothing would change, so that the same plan never runs twice.
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
    """Whether the step serves one crosscoder of a pair that has others left."""
    if experiment.study is not None or failed.stage not in PER_CROSSCODER:
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
