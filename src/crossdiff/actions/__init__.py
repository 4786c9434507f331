"""The actions of the command line, one module each; `run` also has plan, train, status, cancel and retry."""

from __future__ import annotations

from collections.abc import Sequence

from crossdiff.config import Experiment


def perform(experiments: Sequence[Experiment]) -> int:
    """Carry out the action of the experiments (grid points of one command); returns the exit code."""
    match experiments[0].action:
        case "run" | "plan" | "train" | "status" | "cancel" | "retry":
            from crossdiff.actions import run as verb
        case "ask":
            from crossdiff.actions import ask as verb
        case "render":
            from crossdiff.actions import render as verb
        case "export":
            from crossdiff.actions import export as verb
        case "validate":
            from crossdiff.actions import validate as verb
        case "compare":
            from crossdiff.actions import compare as verb
        case "studies":
            from crossdiff.actions import studies as verb
        case "taxonomy":
            from crossdiff.actions import taxonomy as verb
    return verb.perform(experiments)
