"""`action=train`: stop at the crosscoders, for those who want nothing else; a diff_sae ends there."""

from __future__ import annotations

from collections.abc import Sequence

from crossdiff.actions.run import is_bearable, tell_notices
from crossdiff.command_settings import LocalDispatch
from crossdiff.config import Experiment
from crossdiff.dispatch import local
from crossdiff.io.device import choose_device
from crossdiff.pipeline.plan import plan
from crossdiff.pipeline.planner import ordered
from crossdiff.pipeline.steps import merge
from crossdiff.pipeline.table import plan_table
from crossdiff.settings import Runtime


def perform(experiments: Sequence[Experiment]) -> int:
    """Run the steps up to training and print where every crosscoder lies; returns the exit code."""
    first = experiments[0]
    if not isinstance(first.dispatch, LocalDispatch):
        raise ValueError("action=train runs here, not through SLURM; give dispatch=local, or action=run")
    trains = [step for step in merge(map(plan, experiments)) if step.stage == "train"]
    steps = merge(map(ordered, trains))
    tell_notices(experiments)
    if first.plan:
        print(plan_table(steps, first.store))
        return 0
    device = choose_device(first.device)
    if device == "cpu" and first.device == "auto" and not is_bearable(steps, first):
        return 2
    workers = first.dispatch.harvest_workers
    runtime = Runtime(store=first.store, device=device, n_workers=workers, progress=first.progress)
    local.run_steps(steps, runtime)
    for step in trains:
        print(f"crosscoder {step.label}: {step.folder(first.store) / 'crosscoder'}", flush=True)
    return 0
