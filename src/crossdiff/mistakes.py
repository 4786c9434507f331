"""One message for a mistake in the command: the value, the rule, the way out."""

from __future__ import annotations

import difflib
import re
from typing import Any

from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import ValidationError

from crossdiff.io.environment import conf_dir
from crossdiff.stages import protocol
from crossdiff.stages.protocol import Resources

MOST_LISTED = 25
"""Most options that a message lists; of a longer list it names the nearest."""


def explain(error: BaseException) -> str | None:
    """The message for a configuration error (value, rule, nearest options); None for other errors."""
    cause = _root(error)
    match cause:
        case OverrideParseException():
            return _unreadable(cause.override)
        case HydraException() if str(cause).startswith("Ambiguous value for argument '"):
            override = str(cause).partition("argument '")[2].partition("'\n")[0]
            return f"{_unreadable(override)}; several values to be tried one after another need -m"
        case ValidationError():
            group = _group(error)
            return "\n       ".join(_one_problem(problem, group) for problem in cause.errors())
        case MissingConfigException() if cause.options:
            group, _, option = (cause.missing_cfg_file or "").rpartition("/")
            return f"{group}={option} is no option of {group!r}; {_choices(option, list(cause.options))}"
        case MissingMandatoryValue() if cause.full_key == "layer":
            return (
                "layer has no value; give the block whose output is compared, counted from 0 (layer=20), or "
                "experiment=demo, which shows everything on a toy (python run.py --help)"
            )
        case MissingMandatoryValue():
            return f"{cause.full_key} has no value; give {cause.full_key}=..."
        case ConfigCompositionException() | OmegaConfBaseException():
            return _unknown_key(cause)
        case HydraException() if not isinstance(cause, InstantiationException):
            return str(cause)
        case ImportError() if str(error).startswith("Error locating target"):
            path = " ".join(str(cause).split())
            return f"{path}; put your class beside run.py, or on PYTHONPATH"
        case ValueError() if isinstance(error, InstantiationException):
            return str(cause)
        case ValueError() if "Config group override must be a string or a list" in str(cause):
            return "a group has no option null; remove a preset's choice with ~<group>, as in ~comparison"
    return None


def _unreadable(override: str) -> str:
    """The message for an argument that Hydra's grammar cannot read, with the argument quoted."""
    key, is_assignment, value = override.partition("=")
    if not is_assignment or not re.fullmatch(r"[-+~]*[\w.@/]+", key, re.ASCII):
        return f"{override!r} cannot be read; arguments are written as setting=value"
    is_list = value.startswith("[")
    values = value.strip("[]").split(",") if is_list else [value]
    quoted = ",".join('"' + text.replace('"', '\\"') + '"' for text in values)
    given = f"{key}=[{quoted}]" if is_list else f"{key}={quoted}"
    return (
        f"{override} cannot be read: a value with '=', ',', '#', blanks, quotes or letters beyond ASCII "
        f"needs double quotes of its own, inside single quotes for the shell: '{given}'"
    )


def _root(error: BaseException) -> BaseException:
    """The exception inside Hydra's wrappers."""
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _group(error: BaseException) -> str:
    """Key of the block that Hydra was building, such as `training` or `organism.tuning`; "" for the whole."""
    match = re.search(r"^full_key: (\S+)\s*\Z", str(error), re.MULTILINE)
    if match is None or not isinstance(error, InstantiationException):
        return ""
    return re.sub(r"(?<=sources)(\d+)", r".\1", match.group(1))  # Hydra leaves out the point before an index


def _one_problem(problem: Any, group: str) -> str:
    given = problem["input"]
    where = ".".join(str(part) for part in (*filter(None, [group]), *problem["loc"])) or "settings"
    match problem["type"]:
        case "value_error":
            text = str(problem["ctx"]["error"])
            return f"{group}.{text}" if group and re.match(r"\w+=", text) else text
        case "extra_forbidden":
            return f"{where} is no setting; remove it (python run.py --help lists the groups)"
        case "missing" if isinstance(problem["loc"][-1], int):
            whole, _, _ = where.rpartition(".")
            return f"{whole}={given!r} lacks value number {problem['loc'][-1] + 1}; give every value"
        case "missing":
            return f"{where} has no value; give {where}=..."
        case "too_short" if not given:
            return f"{where}=[] is empty; give at least one value"
        case "tuple_type" | "list_type" if isinstance(given, str | int | float):
            return f"{where}={given} is one value where a list is wanted; give '{where}=[{given}]'"
    return f"{where}={given!r}: {problem['msg']}"


OF_OWN_COMPARISONS = ("comparison.n_seeds", "comparison.seed_null", "comparison.without")
"""Settings of every comparison that an option file may leave out."""


def _unknown_key(error: BaseException) -> str:
    texts = [str(error), str(error.__cause__ or "")]
    match = re.search(r"Could not override '([^']+)'|Key '([^']+)' is not in struct", "\n".join(texts))
    if match is None:
        return "; ".join(text.strip() for text in texts if text.strip())
    key = match.group(1) or match.group(2)
    if stage := re.match(r"dispatch\.stages\.(\w+)", key):
        if stage[1] in protocol.names():
            return f"{key} is no setting; {_choices(key.rpartition('.')[2], list(Resources.model_fields))}"
        return f"{key}: {stage[1]} is no stage; {_choices(stage[1], protocol.names())}"
    of_a_pair = re.match(r"comparison\.(?:reference|treatment)\.(.+)", key)
    if key in OF_OWN_COMPARISONS or (of_a_pair and f"model_pair.{of_a_pair[1]}" in _all_keys()):
        return f"{key}: the chosen comparison's file leaves it out; add it as +{key}=..."
    owners = _options_with(key)
    if owners:
        group, _, name = key.partition(".")
        listed = ", ".join(f"{group}={option}" for option in owners)
        return (
            f"{key}: the {group} chosen here has no {name}, unlike {listed}; remove it or choose one of those"
        )
    return f"{key} is no setting; {_choices(key, _all_keys())}"


def _choices(given: str, options: list[str]) -> str:
    near = difflib.get_close_matches(given, options, n=4, cutoff=0.5)
    if near:
        return f"did you mean {', '.join(near)}?"
    if len(options) <= MOST_LISTED:
        return f"choose from {', '.join(sorted(options))}"
    nearest = difflib.get_close_matches(given, options, n=4, cutoff=0)
    return f"nearest are {', '.join(nearest)}; python run.py --help lists the groups"


def _options_with(key: str) -> list[str]:
    """Options of a group that have the setting `group.name`, in the order of their names."""
    group, _, name = key.partition(".")
    return [option for owner, option, setting in _settings() if (owner, setting) == (group, name)]


def _all_keys() -> list[str]:
    keys = [key for key in OmegaConf.load(conf_dir() / "config.yaml") if key not in ("defaults", "hydra")]
    nested = [f"{group}.{setting}" for group, _, setting in _settings()]
    return sorted({*_groups(), *map(str, keys), *nested})


def _settings() -> list[tuple[str, str, str]]:
    """(group, option, setting) of every file of every group."""
    groups = _groups()
    return [
        (path.parent.name, path.stem, str(key))
        for path in sorted(conf_dir().glob("*/*.yaml"))
        if path.parent.name in groups
        for key in OmegaConf.load(path)  # type: ignore[union-attr]
        if not str(key).startswith("_")
    ]


def _groups() -> list[str]:
    return [path.name for path in conf_dir().iterdir() if path.is_dir() and path.name != "hydra"]
