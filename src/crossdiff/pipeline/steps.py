"""A step of the plan (inputs, parents, key, artifact folder), and the job that runs one or several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from crossdiff.io.artifacts import MANIFEST, artifact_key
from crossdiff.settings import Settings
from crossdiff.stages import protocol
from crossdiff.stages.protocol import ImportedInputs, Stage

PER_CROSSCODER = ("train", "scale", "documents")
"""Stages with one step per crosscoder; the step's label is the crosscoder's name."""


def role(stage: str, label: str) -> str:
    """Role of a step among a report's parents: `train_<crosscoder>`, `annotate`."""
    return f"{stage}_{label}" if stage in PER_CROSSCODER else stage


@dataclass(frozen=True)
class Cost:
    """Estimated cost of a step; None where unknown before it runs.

    `gpu_hours` are hours of one H200 (docs/performance.md), `cpu_hours` of two CPU cores. `memory_gb` is the
    most on one device at a time (known for training only), `shards_gb` the same for other values of
    `training.shards`: (shards, GB per device).
    """

    gpu_hours: float | None = 0.0
    cpu_hours: float | None = 0.0
    disk_gb: float | None = 0.0
    api_usd: float | None = 0.0
    memory_gb: float | None = 0.0
    shards_gb: tuple[tuple[int, float], ...] = ()

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            _sum(self.gpu_hours, other.gpu_hours),
            _sum(self.cpu_hours, other.cpu_hours),
            _sum(self.disk_gb, other.disk_gb),
            _sum(self.api_usd, other.api_usd),
            _largest([self.memory_gb, other.memory_gb]),
            max(self.shards_gb, other.shards_gb),
        )


def _sum(left: float | None, right: float | None) -> float | None:
    return None if left is None or right is None else left + right


@dataclass(frozen=True, eq=False)
class Step:
    """One artifact to make; `label` is its name for people, `key` in the store."""

    stage: str
    label: str
    inputs: Settings
    parents: Mapping[str, Step] = field(default_factory=dict)
    cost: Cost = Cost()

    @property
    def name(self) -> str:
        """Name in progress lines and tables."""
        return f"{self.stage} {self.label}".strip()

    @property
    def shown(self) -> str:
        """The name, marked where the step imports an artifact."""
        return f"{self.name} (imported)" if self.is_imported else self.name

    @property
    def is_imported(self) -> bool:
        """Whether the step reads another tool's product in place of making one."""
        return isinstance(self.inputs, ImportedInputs)

    @property
    def definition(self) -> Stage:
        """The `STAGE` of its stage; an import has its own resources and is never divided."""
        declared = protocol.stage_of(self.stage, self.inputs)
        if not isinstance(self.inputs, ImportedInputs):
            return declared
        return replace(
            declared, resources=self.inputs.RESOURCES, joins_layers=False, shards=None, together=None
        )

    @cached_property
    def key(self) -> str:
        """Hash of the inputs, the parents' keys and the stage's version."""
        return self.key_now()

    def key_now(self) -> str:
        """The key from the files as they are now; `key` keeps its first value."""
        parents = {role: parent.key for role, parent in self.parents.items()}
        return artifact_key(self.stage, self.definition.version, self.inputs, parents)

    def folder(self, store: Path) -> Path:
        """Where the finished artifact lies."""
        return store / self.stage / self.key

    def is_finished(self, store: Path) -> bool:
        """Whether the artifact exists; it is published by one rename, so one with a manifest is complete."""
        return (self.folder(store) / MANIFEST).is_file()

    def finished_folder(self, store: Path) -> Path:
        """The artifact's folder; ValueError where it does not exist yet."""
        if not self.is_finished(store):
            raise ValueError(
                f"{self.name} is not finished in store={store}; give the same command with action=run first"
            )
        return self.folder(store)


def merge(plans: Iterable[Iterable[Step]]) -> list[Step]:
    """All steps of several plans, parents first, one step per key."""
    merged: dict[str, Step] = {}
    for plan in plans:
        for step in plan:
            merged.setdefault(step.key, step)
    return sorted(merged.values(), key=lambda step: protocol.position(step.definition))


@dataclass(frozen=True, eq=False)
class Job:
    """One or more steps computed by a single call of their stage.

    Harvest steps that differ only in the layer are one job: the forward pass stops after the deepest layer,
    and every layer becomes an artifact. So are steps that their stage makes together (`protocol.Together`).
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
            return self.steps[0].shown
        if self.is_together:
            return f"{self.stage} {', '.join(step.label for step in self.steps)}"
        layers = ",".join(str(step.inputs.layers[0]) for step in self.steps)  # type: ignore[attr-defined]
        return f"{self.steps[0].name} (layers {layers})"

    @property
    def is_imported(self) -> bool:
        """Whether its steps import their artifacts."""
        return self.steps[0].is_imported

    @property
    def is_together(self) -> bool:
        """Whether its steps are made at the same time, each in its own draft."""
        return len(self.steps) > 1 and self.steps[0].definition.together is not None

    @property
    def inputs(self) -> Settings:
        """The inputs for the stage's `run`."""
        if len(self.steps) == 1:
            return self.steps[0].inputs
        layers = tuple(sorted(step.inputs.layers[0] for step in self.steps))  # type: ignore[attr-defined]
        return self.steps[0].inputs.model_copy(update={"layers": layers})

    @property
    def key(self) -> str:
        """Name of the draft folder, the same for a job that is repeated after it was killed."""
        return (
            "-".join(sorted(step.key for step in self.steps))
            if len(self.steps) < 4
            else (f"{min(step.key for step in self.steps)}-and-{len(self.steps) - 1}")
        )

    @property
    def cost(self) -> Cost:
        """Largest compute of steps that share a forward pass, else their sum; summed disk."""
        total = Cost()
        for step in self.steps:
            total = total + step.cost
        if len(self.steps) == 1 or self.is_together:
            return total
        gpu = [step.cost.gpu_hours for step in self.steps]
        cpu = [step.cost.cpu_hours for step in self.steps]
        return Cost(_largest(gpu), _largest(cpu), total.disk_gb, total.api_usd)


def _largest(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if len(known) == len(values) else None


def group(steps: Sequence[Step]) -> list[Job]:
    """Steps in order, joined into jobs: the layers of one harvest, and steps that are made together."""
    jobs: dict[str, list[Step]] = {}
    for step in steps:
        jobs.setdefault(_shared_pass(step), []).append(step)
    return [job for members in jobs.values() for job in _jobs(members)]


def _jobs(steps: Sequence[Step]) -> list[Job]:
    together = steps[0].definition.together
    most = len(steps) if together is None else together.at_most(steps[0].inputs)
    return [Job(tuple(steps[first : first + most])) for first in range(0, len(steps), most)]


def _shared_pass(step: Step) -> str:
    definition = step.definition
    if definition.joins_layers:
        shared = step.inputs.model_copy(update={"layers": ()}).identity()
    elif definition.together is None or (shared := definition.together.shared(step.inputs)) is None:
        return step.key
    return f"{step.stage} {shared} {[parent.key for parent in step.parents.values()]}"
