"""Cluster profiles: `slurm/<cluster>.yaml` as typed settings."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from crossdiff.command_settings import SlurmDispatch, StageResources
from crossdiff.stages.protocol import Resources, Stage

PACKAGE = Path(__file__).resolve().parents[1]
FOLDERS = (PACKAGE.parents[1] / "slurm", PACKAGE / "slurm")


class Profile(Resources):
    """What is particular to a cluster (`slurm/<cluster>.yaml`): for all stages, and for single ones."""

    stages: StageResources = Field(default_factory=dict)


def resolve(stage: Stage, dispatch: SlurmDispatch, profile: Profile) -> Resources:
    """Resources of one stage: command line per stage, command line, profile per stage, profile, its own."""
    open_values = Resources()
    sources = (
        dispatch.stages.get(stage.name, open_values),
        dispatch,
        profile.stages.get(stage.name, open_values),
        profile,
        stage.resources,
    )
    found = open_values
    for weaker in sources:
        found = found.over(weaker)
    return found


def load_profile(name: str | None) -> Profile:
    """The profile of that name in `slurm/`, or of that file; an empty one for None."""
    if name is None:
        return Profile()
    path = find_profile(name)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"profile {path} is not YAML ({error}); see slurm/example.yaml") from None
    try:
        return Profile.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(_problem(problem) for problem in error.errors())
        raise ValueError(f"profile {path}: {problems}") from None


def find_profile(name: str) -> Path:
    """Path of a profile; ValueError lists those there are."""
    given = Path(name).expanduser()
    candidates = [given] if given.suffix in (".yaml", ".yml") else []
    candidates += [folder / f"{name}.yaml" for folder in FOLDERS]
    for path in candidates:
        if path.is_file():
            return path
    known = sorted({path.stem for folder in FOLDERS for path in folder.glob("*.yaml")})
    raise ValueError(
        f"dispatch.profile={name} is no cluster profile; there are {', '.join(known) or 'none'}, "
        "or give the path of a .yaml file (slurm/example.yaml explains the keys)"
    )


def _problem(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"] if part != "[key]")
    if problem["type"] == "extra_forbidden":
        return f"key {where} does not exist; {_near(problem['loc'])}"
    if problem["type"] == "value_error":
        return f"{where}: {problem['ctx']['error']}"
    return f"{where}={problem['input']!r}: {problem['msg']}"


def _near(location: Sequence[Any]) -> str:
    known = Resources.model_fields if len(location) > 1 else Profile.model_fields
    near = difflib.get_close_matches(str(location[-1]), known, n=3, cutoff=0.5)
    return f"did you mean {', '.join(near)}?" if near else f"keys are {', '.join(known)}"
