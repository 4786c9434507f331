"""Turning a job's draft into finished artifacts, so that a kill in between loses nothing."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossdiff.io import artifacts
from crossdiff.pipeline.jobs import Job
from crossdiff.pipeline.steps import Step


def publish_job(job: Job, draft: Path, manifest: Mapping[str, Any], store: Path) -> None:
    """One artifact per step of the job; several layers of one forward pass are parted here."""
    for step in job.steps:
        _check_unchanged(step)
    for hidden in draft.glob(".*"):
        shutil.rmtree(hidden) if hidden.is_dir() else hidden.unlink()
    hashes = job.steps[0].definition.file_hashes(draft)
    if len(job.steps) == 1:
        (step,) = job.steps
        artifacts.write_manifest(draft, {**describe(step), **manifest}, hashes=hashes)
        with artifacts.publish(step.folder(store), draft=draft):
            pass
        return
    whole = artifacts.write_manifest(draft, manifest, hashes=hashes)
    ready = [_prepare(job, step, draft, whole, store) for step in job.steps]
    for step, folder in zip(job.steps, ready, strict=True):
        name = _layer_folder(step)
        (draft / name).rename(folder / name)
    for step in job.steps:
        _publish_ready(step, store)
    shutil.rmtree(draft)


def missing_steps(job: Job, store: Path) -> tuple[Step, ...]:
    """Steps of the job that still have to be computed."""
    for step in job.steps:
        _publish_ready(step, store)
    return tuple(step for step in job.steps if not step.is_finished(store))


def _check_unchanged(step: Step) -> None:
    """ValueError where a file that decides the key (a taxonomy, a ledger) was edited since it was planned."""
    found = step.key_now()
    if found != step.key:
        raise ValueError(
            f"a file that {step.name} reads was changed while the command ran (key {step.key} when it was "
            f"planned, {found} now), so its result is not kept; give the same command again"
        )


def _publish_ready(step: Step, store: Path) -> None:
    """Publish what was prepared whole for this step, by this process or by one that was killed."""
    home = store / step.stage
    for folder in home.glob(f".{step.key}.*.ready"):
        if (folder / artifacts.MANIFEST).is_file() and (folder / _layer_folder(step)).is_dir():
            with artifacts.publish(step.folder(store), draft=folder):
                pass


def describe(step: Step) -> dict[str, Any]:
    """What a manifest says about the step that made it."""
    return {
        "stage": step.stage,
        "label": step.label,
        "key": step.key,
        "stage_version": step.definition.version,
        "inputs": step.inputs.model_dump(mode="json"),
        "identity": step.inputs.identity(),
        "parents": {role: parent.key for role, parent in step.parents.items()},
    }


def _prepare(job: Job, step: Step, draft: Path, whole: Mapping[str, Any], store: Path) -> Path:
    """A folder with everything of one step but its layer, whose rename then makes it whole."""
    folder = store / step.stage / f".{step.key}.{job.key}.ready"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for child in sorted(draft.iterdir()):
        if not child.name.startswith("layer_") and child.name != artifacts.MANIFEST:
            copy = shutil.copytree if child.is_dir() else shutil.copy2
            copy(child, folder / child.name)
    others = tuple(f"{_layer_folder(other)}/" for other in job.steps if other is not step)
    files = {name: found for name, found in whole["files"].items() if not name.startswith(others)}
    artifacts.seal({**whole, **describe(step), "files": files}, folder)
    return folder


def _layer_folder(step: Step) -> str:
    return f"layer_{step.inputs.layers[0]}"  # type: ignore[attr-defined]
