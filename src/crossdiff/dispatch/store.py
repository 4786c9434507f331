"""The store as a folder that several people and machines share; drafts become artifacts in it.

A kill between two renames loses nothing: the next command publishes the prepared artifact.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from crossdiff.io import artifacts
from crossdiff.pipeline.cost import amount
from crossdiff.pipeline.steps import Job, Step, group
from crossdiff.stages import protocol


def prepare_store(store: Path) -> None:
    """Create the store, prove that it can be written, and keep a shared one shared.

    In a group-writable store all files of this process are group-writable, so that a second user of the group
    can continue from them.
    """
    try:
        store.mkdir(parents=True, exist_ok=True)
        probe = store / f".writable-{uuid4().hex[:8]}"
        probe.write_text("")
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise ValueError(
            f"store={store} cannot be written ({error.strerror}{_owned(store)}); "
            "give a writable folder: store=/path"
        ) from None
    closed = [folder for folder in _parts(store) if not os.access(folder, os.W_OK | os.X_OK)]
    if closed:
        raise ValueError(
            f"{closed[0]} cannot be written{_owned(closed[0])}; ask its owner to share the store with a "
            f"group: chmod -R g+rwX {store} && chmod g+s {store}, or give a store of your own: store=/path"
        )
    if store.stat().st_mode & stat.S_IWGRP:
        os.umask(os.umask(0o022) & ~0o070)


def draft_folder(job: Job, store: Path) -> Path:
    """Working folder of a job until it is published; a killed job continues from it."""
    return store / job.stage / f".{job.key}.draft"


def warn_of_little_room(steps: Sequence[Step], store: Path) -> None:
    """Warn on stderr where the store has less free space than the plan still writes.

    Nothing is refused: sizes are estimates, steps of unknown size count as nothing, and quotas are not seen.
    """
    jobs = group([step for step in steps if not step.is_finished(store)])
    sizes = {draft_folder(job, store): job.cost.disk_gb or 0.0 for job in jobs}
    free_gb = shutil.disk_usage(store).free / 1e9
    if sum(sizes.values()) <= free_gb:
        return
    left_gb = sum(max(0.0, size - _written_gb(draft)) for draft, size in sizes.items())
    if left_gb > free_gb:
        print(
            f"warning: this plan has about {amount(left_gb)} GB still to write, but store={store} has "
            f"{amount(free_gb)} GB free; once it is full the run stops and goes on when there is room: free "
            "some, give another store=/path, or write less (source.storage=int8, source=live)",
            file=sys.stderr,
            flush=True,
        )


def _written_gb(draft: Path) -> float:
    """Bytes that an interrupted job has written; its files may vanish meanwhile."""
    total = 0
    for path in draft.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size
    return total / 1e9


def _parts(store: Path) -> list[Path]:
    return [folder for name in (*protocol.names(), ".submitit") if (folder := store / name).is_dir()]


def _owned(path: Path) -> str:
    """`, it belongs to alice`: of the path or of the nearest folder above it that exists."""
    for folder in (path, *path.absolute().parents):
        try:
            owner = folder.stat().st_uid
        except OSError:
            continue
        subject = "it" if folder == path else str(folder)
        return f", {subject} belongs to {user_name(owner)}"
    return ""


def user_name(user: int) -> str:
    """Name of a user id; containers often have ids without one."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"


def publish_job(job: Job, draft: Path, manifest: Mapping[str, Any], store: Path) -> None:
    """One artifact per step of the job; several layers of one forward pass are separated."""
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
    key_now = step.key_now()
    if key_now != step.key:
        raise ValueError(
            f"a file that {step.name} reads was changed while the command ran (key {step.key} when it was "
            f"planned, {key_now} now), so its result is not kept; give the same command again"
        )


def _publish_ready(step: Step, store: Path) -> None:
    """Publish the prepared artifact of this step, of this process or a killed one."""
    home = store / step.stage
    for folder in home.glob(f".{step.key}.*.ready"):
        if (folder / artifacts.MANIFEST).is_file() and (folder / _layer_folder(step)).is_dir():
            with artifacts.publish(step.folder(store), draft=folder):
                pass


def describe(step: Step) -> dict[str, Any]:
    """The manifest's facts about the step."""
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
    files = {name: sha256 for name, sha256 in whole["files"].items() if not name.startswith(others)}
    artifacts.seal({**whole, **describe(step), "files": files}, folder)
    return folder


def _layer_folder(step: Step) -> str:
    return f"layer_{step.inputs.layers[0]}"  # type: ignore[attr-defined]
