"""The store as a folder that several people and machines may share."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from crossdiff.pipeline.jobs import Job, group
from crossdiff.pipeline.steps import Step
from crossdiff.pipeline.table import amount
from crossdiff.stages import registry


def prepare_store(store: Path) -> None:
    """Create the store, prove that it can be written, and keep a shared one shared.

    In a group-writable store everything this process makes is group-writable too, so that a second user of
    the group can go on from it.
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
    """Where a job works until it is published; a killed job finds its own work there again."""
    return store / job.stage / f".{job.key}.draft"


def warn_of_little_room(steps: Sequence[Step], store: Path) -> None:
    """One line on stderr where the store has less free space than the plan has still to write.

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
    """What an interrupted job has written already; its files may vanish meanwhile."""
    total = 0
    for path in draft.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size
    return total / 1e9


def _parts(store: Path) -> list[Path]:
    return [folder for name in (*registry.names(), ".submitit") if (folder := store / name).is_dir()]


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
