"""Which of the compared models a log is about."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from crossdiff.models.pair import ModelSettings
from crossdiff.studies.behaviour.binary_scores import Log


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
