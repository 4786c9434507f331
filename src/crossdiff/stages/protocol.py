"""What a stage is, and the list of all: every stage module ends with one `STAGE`, which this file finds."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Protocol

from pydantic import Field

from crossdiff.settings import Runtime, Settings

EVERYTHING = ("*",)
"""`Stage.reads` of a stage that may read any other."""


class Resources(Settings):
    """What a job asks of SLURM; None leaves the value to the next weaker source (dispatch/sbatch.py).

    gpus, cpus and memory_gb are those of one node; above 1 `nodes` share the processes of one step.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    nodes: int | None = Field(default=None, ge=1)
    gpus: int | None = Field(default=None, ge=0)
    cpus: int | None = Field(default=None, ge=1)
    memory_gb: float | None = Field(default=None, gt=0)
    hours: float | None = Field(default=None, gt=0)
    array_parallelism: int | None = Field(default=None, ge=1)
    setup: tuple[str, ...] | None = None

    def over(self, weaker: Resources) -> Resources:
        """These resources, with None values taken from `weaker`."""
        names = Resources.model_fields
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return Resources(**{name: getattr(weaker, name) for name in names} | given)


def needs(*, gpus: int = 0, cpus: int = 2, memory_gb: float = 8, hours: float = 2) -> Resources:
    """What a stage needs at paper scale (114,688 latents, 200 M tokens, gemma-2-9b; docs/performance.md)."""
    return Resources(gpus=gpus, cpus=cpus, memory_gb=memory_gb, hours=hours, array_parallelism=16)


class ImportedInputs(Settings):
    """Inputs of a step that imports its artifact; its SLURM job asks for `RESOURCES`."""

    RESOURCES: ClassVar[Resources] = needs(cpus=4, memory_gb=32, hours=6)


class Run(Protocol):
    """The function that makes one artifact."""

    def __call__(
        self, inputs: Any, parents: Mapping[str, Path], draft: Path, runtime: Runtime
    ) -> dict[str, Any]:
        """Write the artifact into `draft`, which may hold the work of a killed run.

        `parents`: finished folders by role. Returns figures for the manifest (`counts`) and, where they are
        numbers or words, for the progress line.
        """
        ...


@dataclass(frozen=True)
class Shards:
    """How array tasks share one run, which then joins their shards.

    applies   whether a run with these inputs has shards
    make      writes shards that no other process has taken, and returns how many
    missing   files of the shards that `run` would still have to compute
    """

    applies: Callable[[Any], bool]
    make: Callable[[Any, Mapping[str, Path], Path, Runtime], int]
    missing: Callable[[Any, Mapping[str, Path], Path, Runtime], list[str]]


@dataclass(frozen=True)
class Together:
    """How steps with the same parents are made at a time, each in its own draft.

    shared   equal for steps that are made together; None for a step that is made alone
    at_most  most steps at a time
    run      writes the artifacts into their drafts; returns the figures of each, or its ValueError
    """

    shared: Callable[[Any], Any]
    at_most: Callable[[Any], int]
    run: Callable[
        [Sequence[Any], Mapping[str, Path], Sequence[Path], Runtime], list[dict[str, Any] | ValueError]
    ]


def _hashes_none(draft: Path) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, eq=False)
class Stage:
    """One kind of step: how it runs, and what plan, scheduler and docs need to know.

    name             of the artifact folder `store/<name>/<key>` and of `dispatch.stages.<name>`
    version          part of every key; raise it when equal inputs give other results
    run              makes the artifact
    reads            stages whose artifacts may be its parents; decides the order of all stages
    writes           content of the artifact, for the docs' table
    resources        of a SLURM job, unless the profile or the command line gives others
    least_seconds    what its smallest run takes on two CPU cores (make demo), for the estimate of the cost
    has_settings     whether its inputs are settings of the command line, which summary.json lists
    joins_layers     whether steps that differ in `inputs.layers` only are one run, which writes `layer_<L>/`
    shards           how array tasks share a run; None where it is one piece of work
    ranks            setting and number of the processes that share a run; None where it is always one
    together         how several steps are made at a time; None where each is made alone
    file_hashes      sha256 of the files in a draft that were hashed while they were written
    """

    name: str
    version: int
    run: Run
    reads: tuple[str, ...]
    writes: str
    resources: Resources = field(default_factory=needs)
    least_seconds: float = 1.0
    has_settings: bool = False
    joins_layers: bool = False
    shards: Shards | None = None
    ranks: Callable[[Any, Runtime], tuple[str, int]] | None = None
    together: Together | None = None
    file_hashes: Callable[[Path], Mapping[str, str]] = _hashes_none


PACKAGE = Path(__file__).resolve().parents[1]
PLACES = ("stages/*.py", "studies/*/*.py")
_DECLARATION = re.compile(r'^STAGE(?:: Stage)? = Stage\(\s*(?:name=)?"(\w+)"', re.MULTILINE)


@cache
def modules() -> dict[str, str]:
    """Stage -> the module that declares it.

    The files' text is searched: importing them would load every study for a list of names.
    """
    homes: dict[str, str] = {}
    for path in sorted(path for place in PLACES for path in PACKAGE.glob(place)):
        module = ".".join((PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts))
        for name in _DECLARATION.findall(path.read_text(encoding="utf-8")):
            if name in homes:
                raise ValueError(f"stage {name} is declared by {homes[name]} and by {module}; rename one")
            homes[name] = module
    return homes


def stage(name: str) -> Stage:
    """The stage of that name in this package."""
    if name not in modules():
        raise ValueError(f"there is no stage {name!r}; there are {', '.join(names())}")
    return importlib.import_module(modules()[name]).STAGE


def stage_of(name: str, inputs: Settings) -> Stage:
    """The stage of a step; a stage from outside the package is declared in the module of its inputs."""
    if name in modules():
        return stage(name)
    declared = getattr(sys.modules[type(inputs).__module__], "STAGE", None)
    if not isinstance(declared, Stage) or declared.name != name:
        raise ValueError(
            f"there is no stage {name!r}: neither crossdiff nor {type(inputs).__module__}, the module of "
            f"{type(inputs).__name__}, has STAGE = Stage({name!r}, ...)"
        )
    return declared


def stages() -> list[Stage]:
    """All stages of this package, every one after those it reads."""
    return sorted(map(stage, modules()), key=position)


def names() -> list[str]:
    """Names of all stages of this package; imports none of them."""
    return sorted(modules())


def position(declared: Stage) -> tuple[int, str]:
    """Sort key: stages follow those they read; then by name."""
    return _depth(declared), declared.name


def _depth(declared: Stage) -> int:
    """Length of the longest path to a stage that reads none."""
    if declared.reads == EVERYTHING:
        return sys.maxsize
    return max((1 + _depth_of(name) for name in declared.reads), default=0)


@cache
def _depth_of(name: str) -> int:
    """`_depth` of a stage of this package, cached."""
    return _depth(stage(name))
