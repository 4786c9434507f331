"""What runs together: harvest steps of one model share one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from crossdiff.pipeline.steps import Cost, Step
from crossdiff.settings import Settings


@dataclass(frozen=True, eq=False)
class Job:
    """One or more steps computed by a single call of their stage.

    Several harvest steps that differ only in the layer are one job: the forward pass stops after the
    deepest layer and every layer is published as an artifact of its own.
    """

    steps: tuple[Step, ...]

    @property
    def stage(self) -> str:
        """The stage all steps of the job belong to."""
        return self.steps[0].stage

    @property
    def name(self) -> str:
        """Name for progress lines; lists the layers when there are several."""
        if len(self.steps) == 1:
            return self.steps[0].name
        layers = ",".join(str(step.inputs.layers[0]) for step in self.steps)  # type: ignore[attr-defined]
        return f"{self.steps[0].name} (layers {layers})"

    @property
    def inputs(self) -> Settings:
        """What the stage's run() receives."""
        if len(self.steps) == 1:
            return self.steps[0].inputs
        layers = tuple(sorted(step.inputs.layers[0] for step in self.steps))  # type: ignore[attr-defined]
        return self.steps[0].inputs.model_copy(update={"layers": layers})

    @property
    def key(self) -> str:
        """Names the draft folder, so that a killed job finds its own work again."""
        return (
            "-".join(sorted(step.key for step in self.steps))
            if len(self.steps) < 4
            else (f"{min(step.key for step in self.steps)}-and-{len(self.steps) - 1}")
        )

    @property
    def cost(self) -> Cost:
        """Largest compute of the steps (they share a forward pass), summed disk."""
        total = Cost()
        for step in self.steps:
            total = total + step.cost
        if len(self.steps) == 1:
            return total
        gpu = [step.cost.gpu_hours for step in self.steps]
        cpu = [step.cost.cpu_hours for step in self.steps]
        return Cost(_largest(gpu), _largest(cpu), total.disk_gb, total.api_usd)


def _largest(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if len(known) == len(values) else None


def group(steps: Sequence[Step]) -> list[Job]:
    """Steps in order, harvest steps of the same model and tokens joined into one job."""
    jobs: dict[str, list[Step]] = {}
    for step in steps:
        jobs.setdefault(_shared_pass(step), []).append(step)
    return [Job(tuple(members)) for members in jobs.values()]


def _shared_pass(step: Step) -> str:
    if not step.definition.joins_layers:
        return step.key
    rest = step.inputs.model_copy(update={"layers": ()}).identity()
    return f"{step.stage} {rest} {[parent.key for parent in step.parents.values()]}"
