"""Scores of single answers, as evaluation tools write them, counted as yes or no; grades are not counted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from crossdiff.models.pair import ModelSettings
from crossdiff.settings import Settings

Verdict = Literal["yes", "no", "partial", "unscored", "grade"]
LETTERS: dict[str, Verdict] = {"C": "yes", "I": "no", "N": "no", "P": "partial"}
"""What inspect_ai's scorers write: correct, incorrect, no answer, partially correct."""
WORDS: dict[str, Verdict] = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}


class LoggedSet(Settings):
    """One model's answers to one task under one score; `n_partial` of those not counted as shown were P."""

    name: str
    task: str
    shown: int = Field(ge=0)
    n: int = Field(ge=0)
    n_unjudged: int = Field(default=0, ge=0)
    n_partial: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class Log:
    """What one file says: the model as the tool names it, its sets, and why scores were left out."""

    model: str | None
    sets: tuple[LoggedSet, ...]
    left_out: Mapping[str, str]


def verdict(value: Any) -> Verdict:
    """Yes or no for C, I, N, 1, 0, true, false; `unscored` for None and NaN; `grade` for everything else."""
    match value:
        case None:
            return "unscored"
        case bool():
            return "yes" if value else "no"
        case float() if math.isnan(value):  # an integer can be too large for a float
            return "unscored"
        case int() | float():
            return {1: "yes", 0: "no"}.get(value, "grade")  # type: ignore[return-value]
        case str():
            if value in LETTERS:
                return LETTERS[value]
            if value.lower() in WORDS:
                return WORDS[value.lower()]
            return verdict(float(value)) if _is_number(value) else "grade"
    return "grade"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def counted(name: str, task: str, scores: Iterable[Any]) -> LoggedSet | str:
    """The scores of one set as counts, or why they cannot be counted.

    A share with an interval needs answers that are each right or wrong: a score of 0.4 is a grade, and one
    grade leaves the whole score out. A partially correct answer (P) counts as not correct.
    """
    values = list(scores)
    verdicts = [verdict(value) for value in values]
    if "grade" in verdicts:
        first = values[verdicts.index("grade")]
        return f"not every score is yes or no, as {str(first)[:40]!r}"
    n = len(verdicts) - verdicts.count("unscored")
    if not n:
        return "no answer has a score"
    return LoggedSet(
        name=name,
        task=task,
        shown=verdicts.count("yes"),
        n=n,
        n_unjudged=verdicts.count("unscored"),
        n_partial=verdicts.count("partial"),
    )


def log_of(model: str | None, task: str, scores: Mapping[str, Iterable[Any]]) -> Log:
    """The sets of one task, named `<task>/<score>`."""
    found = {name: counted(f"{task}/{name}", task, values) for name, values in scores.items()}
    return Log(
        model,
        tuple(one for one in found.values() if isinstance(one, LoggedSet)),
        {f"{task}/{name}": one for name, one in found.items() if isinstance(one, str)},
    )


def side_of(log: Log, path: Path, models: Mapping[str, ModelSettings]) -> str:
    """The side of the log's model; ValueError where it fits none or both."""
    fitting = [side for side, model in models.items() if log.model and is_model(log.model, model)]
    if len(fitting) == 1:
        return fitting[0]
    asked = "neither" if not fitting else "both"
    known = " and ".join(f"{side} {model.adapter or model.path}" for side, model in models.items())
    raise ValueError(
        f"{path} evaluates {log.model or 'a model without a name'}, which fits {asked} of the models "
        f"compared ({known}); say which it is: 'study.logs=[\"reference={path}\"]' or treatment="
    )


def is_model(said: str, model: ModelSettings) -> bool:
    """Whether a name as tools log it (`hf/google/gemma-2-9b-it`, a folder) is this model's.

    One name must be the end of the other, part by part: `mine/gemma-2-9b-it` is not `google/gemma-2-9b-it`.
    The model's short name counts where either name is a single part.
    """
    logged, own = _parts(said), _parts(model.adapter or model.path)
    if not logged:
        return False
    shorter = min(len(logged), len(own))
    if logged[-shorter:] == own[-shorter:]:
        return True
    return shorter == 1 and logged[-1] == model.name.casefold()


def _parts(name: str) -> list[str]:
    """Folders and name, without the parts that stand for no folder."""
    return [part for part in name.casefold().split("/") if part not in ("", ".", "..", "~")]
