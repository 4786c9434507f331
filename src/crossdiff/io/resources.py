"""Where the steps of a plan run, and what each of them may take: the settings group `dispatch`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from crossdiff.settings import Settings

StageName = Literal[
    "organism",
    "blend",
    "tokens",
    "harvest",
    "train",
    "planted",
    "self_diff",
    "several",
    "scale",
    "match",
    "causal",
    "documents",
    "annotate",
    "generate",
    "judge",
    "steer",
    "compare",
    "report",
    "study",
]
"""Every stage, parents before children."""


class Resources(Settings):
    """What a job asks of SLURM; None leaves the value to the next weaker source (see `resolve`)."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpus: int | None = Field(default=None, ge=0)
    cpus: int | None = Field(default=None, ge=1)
    memory_gb: float | None = Field(default=None, gt=0)
    hours: float | None = Field(default=None, gt=0)
    array_parallelism: int | None = Field(default=None, ge=1)
    setup: tuple[str, ...] | None = None

    def over(self, weaker: Resources) -> Resources:
        """These resources, completed from `weaker` where nothing is said here."""
        names = Resources.model_fields
        said = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return Resources(**{name: getattr(weaker, name) for name in names} | said)


class LocalDispatch(Settings):
    """Steps run here, one after another.

    `harvest_workers` above 1 lets that many processes take the shards of a harvest, one accelerator each
    where there are several.
    """

    harvest_workers: int = Field(default=1, ge=1)


class SlurmDispatch(Resources):
    """Steps become SLURM jobs that wait for one another.

    `profile` names `slurm/<profile>.yaml` or is the path of such a file. Resources given here hold for
    every stage, those in `stages` for one. `signal_seconds` before the time limit a job saves its work
    and goes back into the queue, at most `max_timeouts` times. `harvest_tasks` above 1 makes a harvest a job
    array over its shards and a job that puts them together. `wait` follows the jobs with a table.
    """

    profile: str | None = None
    stages: dict[StageName, Resources] = Field(default_factory=dict)
    signal_seconds: int = Field(default=120, ge=10)
    max_timeouts: int = Field(default=1000, ge=0)
    harvest_tasks: int = Field(default=1, ge=1)
    wait: bool = False
    poll_seconds: float = Field(default=5.0, gt=0)


DispatchSettings = LocalDispatch | SlurmDispatch


class Profile(Resources):
    """What is particular to a cluster (`slurm/<cluster>.yaml`): for all stages, and for single ones."""

    stages: dict[StageName, Resources] = Field(default_factory=dict)


def _needs(*, gpus: int = 0, cpus: int = 2, memory_gb: float = 8, hours: float = 2) -> Resources:
    return Resources(gpus=gpus, cpus=cpus, memory_gb=memory_gb, hours=hours, array_parallelism=16)


BUILT_IN: dict[StageName, Resources] = {
    "organism": _needs(cpus=4, memory_gb=16, hours=4),
    "blend": _needs(cpus=4, memory_gb=64, hours=2),
    "tokens": _needs(cpus=8, memory_gb=32, hours=6),
    "harvest": _needs(gpus=1, cpus=8, memory_gb=96, hours=24),
    "train": _needs(gpus=1, cpus=8, memory_gb=96, hours=48),
    "planted": _needs(gpus=1, cpus=4, memory_gb=16, hours=8),
    "self_diff": _needs(gpus=1, cpus=8, memory_gb=96, hours=48),
    "several": _needs(gpus=1, cpus=8, memory_gb=96, hours=48),
    "scale": _needs(gpus=1, cpus=8, memory_gb=96, hours=8),
    "match": _needs(gpus=1, cpus=8, memory_gb=96, hours=8),
    "causal": _needs(gpus=1, cpus=8, memory_gb=96, hours=8),
    "documents": _needs(gpus=1, cpus=8, memory_gb=64, hours=4),
    "annotate": _needs(cpus=4, memory_gb=16, hours=24),
    "generate": _needs(gpus=1, cpus=4, memory_gb=64, hours=12),
    "judge": _needs(cpus=4, memory_gb=16, hours=24),
    "steer": _needs(gpus=1, cpus=4, memory_gb=64, hours=12),
    "compare": _needs(memory_gb=16, hours=1),
    "report": _needs(memory_gb=16, hours=1),
    "study": _needs(memory_gb=16, hours=1),
}
"""Resources per stage at paper scale (114,688 latents, 200 M tokens, gemma-2-9b; docs/performance.md)."""


def resolve(stage: StageName, dispatch: SlurmDispatch, profile: Profile) -> Resources:
    """Resources of one stage: command line per stage, command line, profile per stage, profile, built in."""
    nothing = Resources()
    sources = (
        dispatch.stages.get(stage, nothing),
        dispatch,
        profile.stages.get(stage, nothing),
        profile,
        BUILT_IN[stage],
    )
    found = nothing
    for weaker in sources:
        found = found.over(weaker)
    return found
