"""The submission register of a store: which SLURM job makes which step."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field

from crossdiff.dispatch.store import user_name
from crossdiff.io.locks import lock
from crossdiff.io.tables import read_json, write_json
from crossdiff.pipeline.steps import Step
from crossdiff.settings import Settings

FOLDER = ".submitit"


class Entry(Settings):
    """One step's last submission."""

    step: str
    name: str
    job: str
    log: Path
    parts: dict[str, Path] = Field(default_factory=dict)
    """Tasks of the job array before it, each with its log; the job waits for them."""
    needs: tuple[str, ...] = ()
    """Keys of the steps whose jobs this one waits for."""
    user: str = ""
    submitted: str = ""


class Register:
    """`store/.submitit/steps/<step key>.json`, one file per step, each written aside and renamed."""

    def __init__(self, store: Path) -> None:
        self.folder = store.absolute() / FOLDER

    @property
    def exists(self) -> bool:
        """Whether anything was ever submitted for this store."""
        return (self.folder / "steps").is_dir()

    def read(self, keys: Iterable[str]) -> dict[str, Entry]:
        """Entries of those steps that were submitted at some time."""
        found = {}
        for key in keys:
            path = self.folder / "steps" / f"{key}.json"
            try:
                found[key] = Entry.model_validate(read_json(path))
            except FileNotFoundError:
                continue
            except (json.JSONDecodeError, ValueError) as error:
                raise ValueError(
                    f"{path} is no readable submission record ({error}); remove it if no job of that step "
                    f"is queued: rm {path}"
                ) from None
        return found

    def everything(self) -> dict[str, Entry]:
        """All entries of the store."""
        return self.read(path.stem for path in (self.folder / "steps").glob("*.json"))

    def write(self, steps: Iterable[Step], job: str, log: Path, *, parts: Mapping[str, Path]) -> None:
        """Record that `job`, after the array tasks `parts`, makes `steps`."""
        submitted = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        for step in steps:
            entry = Entry(
                step=step.key,
                name=step.name,
                job=job,
                log=log,
                parts=dict(parts),
                needs=tuple(parent.key for parent in step.parents.values()),
                user=user_name(os.getuid()),
                submitted=submitted,
            )
            write_json(entry.model_dump(mode="json"), self.folder / "steps" / f"{step.key}.json")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Only one process submits for a store at a time, so that no step is submitted twice."""
        (self.folder / "steps").mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("a") as handle:
            lock(handle, wait=True)
            yield


def last_lines(entry: Entry, *, n: int = 8) -> list[str]:
    """The end of the job's log, without submitit's own lines and blank ones."""
    try:
        text = entry.log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    lines = [line.rstrip() for line in text.replace("\r", "\n").splitlines()]
    told = [line for line in lines if line and not line.startswith(("submitit ", "srun: "))]
    return told[-n:]


def jobs_of(entries: Mapping[str, Entry]) -> set[str]:
    """Distinct job ids, those of array tasks included."""
    return {job for entry in entries.values() for job in (entry.job, *entry.parts)}
