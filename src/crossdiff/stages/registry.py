"""Every stage there is, found by its declaration in `crossdiff.stages` or in the package of a study."""

from __future__ import annotations

import importlib
import re
import sys
from functools import cache
from pathlib import Path

from crossdiff.settings import Settings
from crossdiff.stages.protocol import EVERYTHING, Stage

PACKAGE = Path(__file__).resolve().parents[1]
PLACES = ("stages/*.py", "studies/*/*.py")
_DECLARATION = re.compile(r'^STAGE(?:: Stage)? = Stage\(\s*(?:name=)?"(\w+)"', re.MULTILINE)


@cache
def modules() -> dict[str, str]:
    """Stage -> the module that declares it.

    The files are searched for their declaration instead of being imported, which would load every study for
    a list of names.
    """
    found: dict[str, str] = {}
    for path in sorted(path for place in PLACES for path in PACKAGE.glob(place)):
        module = ".".join((PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts))
        for name in _DECLARATION.findall(path.read_text(encoding="utf-8")):
            if name in found:
                raise ValueError(f"stage {name} is declared by {found[name]} and by {module}; rename one")
            found[name] = module
    return found


def stage(name: str) -> Stage:
    """The stage of that name in this package."""
    if name not in modules():
        raise ValueError(f"there is no stage {name!r}; there are {', '.join(names())}")
    return importlib.import_module(modules()[name]).STAGE


def stage_of(name: str, inputs: Settings) -> Stage:
    """The stage of a step; one from outside the package is declared where its inputs are."""
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
    """All stages of this package, each after those it reads."""
    return sorted(map(stage, modules()), key=position)


def names() -> list[str]:
    """Names of all stages of this package; imports none of them."""
    return sorted(modules())


def position(declared: Stage) -> tuple[int, str]:
    """Sorts stages so that each follows those it reads, and equals by name."""
    return _depth(declared), declared.name


@cache
def _depth(declared: Stage) -> int:
    """Length of the longest way to a stage that reads none."""
    if declared.reads == EVERYTHING:
        return sys.maxsize
    return max((1 + _depth(stage(name)) for name in declared.reads), default=0)
