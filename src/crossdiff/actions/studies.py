"""`action=studies`: every study at every size, with its question, cost and progress."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crossdiff.config import Experiment, study_presets
from crossdiff.io.environment import command
from crossdiff.pipeline.cost import amount, columns, remaining_cost
from crossdiff.pipeline.plan import plan
from crossdiff.pipeline.steps import Cost
from crossdiff.stages.study import NeedsModels

HEADER = ("study", "size", "steps", "finished", "GPU h", "CPU h", "disk GB", "API $", "question")


@dataclass(frozen=True)
class StudyState:
    """A study at one size, and its unfinished steps in this store."""

    name: str
    size: str
    question: str
    n_steps: int
    n_finished: int
    left: Cost | None
    """None: there is no plan before the user names models."""

    def row(self) -> tuple[str, ...]:
        """Cells in the order of `HEADER`."""
        if self.left is None:
            return (self.name, self.size, *["-"] * (len(HEADER) - 3), self.question)
        left = self.left
        amounts = (left.gpu_hours, left.cpu_hours, left.disk_gb, left.api_usd)
        done = "all" if self.n_finished == self.n_steps else str(self.n_finished)
        return (self.name, self.size, str(self.n_steps), done, *map(amount, amounts), self.question)


def perform(experiments: Sequence[Experiment]) -> int:
    """Print the table; runs nothing."""
    store = experiments[0].store
    print(columns([HEADER, *(state.row() for state in states(store))]))
    print(
        "costs: estimates for the unfinished steps in this store (hours of one H200, or of 2 cores);\n"
        f"run one with: {command()} experiment=<study> size=<size>, look closer with action=plan"
    )
    return 0


def states(store: Path) -> list[StudyState]:
    """All studies at all sizes."""
    rows = []
    for name, size, experiment in study_presets():
        assert experiment.study is not None
        try:
            steps = plan(experiment)
        except NeedsModels:
            rows.append(StudyState(name, size, experiment.study.QUESTION, 0, 0, None))
            continue
        finished = sum(step.is_finished(store) for step in steps)
        left = remaining_cost(steps, store)
        rows.append(StudyState(name, size, experiment.study.QUESTION, len(steps), finished, left))
    return rows
