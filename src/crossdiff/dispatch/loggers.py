"""Loggers record every finished step, from its published artifact.

A stage never sees a logger, so a logger can neither stop nor slow a step nor change its result.
"""

from __future__ import annotations

import csv
import json
import netrc
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from crossdiff.command_settings import CsvLogger, LoggerSettings, NoLogger, WandbLogger
from crossdiff.dispatch.local import Outcome
from crossdiff.dispatch.wandb_run import NOTICE
from crossdiff.pipeline.steps import Step


class Tracker(Protocol):
    """A logger during one run; leaving the context ends its unfinished work."""

    def __enter__(self) -> Tracker: ...

    def __exit__(self, *exception: object) -> None: ...

    def step_finished(self, outcome: Outcome, store: Path) -> None:
        """Record one finished step, computed now or earlier."""

    def published(self, results: Path, rows: Sequence[dict[str, Any]], store: Path) -> None:
        """Record a report in `results`; `rows` are the steps of summary.json."""


def tracker(logger: LoggerSettings, *, group: str) -> Tracker:
    """The logger that the settings ask for; `group` is the title of the comparison or sweep."""
    match logger:
        case NoLogger():
            return NoTracker()
        case CsvLogger():
            return CsvTracker()
        case WandbLogger():
            return WandbTracker(logger, logger.group or group)


@dataclass
class NoTracker:
    """Nothing is written."""

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def step_finished(self, outcome: Outcome, store: Path) -> None:
        """Nothing to do."""

    def published(self, results: Path, rows: Sequence[dict[str, Any]], store: Path) -> None:
        """Nothing to do."""


@dataclass
class CsvTracker(NoTracker):
    """Writes `steps.csv` and each training's `metrics.<pair>.csv` beside the report."""

    def published(self, results: Path, rows: Sequence[dict[str, Any]], store: Path) -> None:
        """Write the steps, and copy the training curves."""
        with (results / "steps.csv").open("w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, ["name", "key", "state", "seconds"])
            writer.writeheader()
            writer.writerows(rows)
        for row in rows:
            stage, _, label = row["name"].partition(" ")
            metrics = store / stage / row["key"] / "metrics.csv"
            if stage == "train" and metrics.is_file():
                shutil.copyfile(metrics, results / f"metrics.{label}.csv")


@dataclass
class WandbTracker(NoTracker):
    """One W&B run per computed step, each written by a process of its own.

    The processes run beside the next step and get `timeout_seconds` after the last; one that fails, hangs or
    finds no login costs one line of notice.
    """

    settings: WandbLogger
    group: str
    mode: str = "offline"
    running: list[_Recording] = field(default_factory=list)
    n_recorded: int = 0
    n_finished_before: int = 0

    def __enter__(self) -> Tracker:
        mode, notice = wandb_mode(self.settings)
        if notice:
            print(f"W&B: {notice}", file=sys.stderr, flush=True)
        self.mode = mode
        return self

    def __exit__(self, *exception: object) -> None:
        for recording in self.running:
            sentence = recording.wait(self.settings.timeout_seconds)
            if sentence is not None:
                print(f"W&B: {recording.name} {sentence}", file=sys.stderr, flush=True)
        self.running.clear()
        if self.n_finished_before and not self.n_recorded and exception[0] is None:
            print(
                f"W&B: nothing was recorded: all {self.n_finished_before} steps were finished before; a step "
                "is recorded when it is computed, so give another store=... to compute and record them",
                file=sys.stderr,
                flush=True,
            )

    def step_finished(self, outcome: Outcome, store: Path) -> None:
        """Start the process that records the step; a step finished earlier was recorded then."""
        if outcome.state == "done":
            task = wandb_task(outcome, store, self.settings, group=self.group, mode=self.mode)
            self.running.append(_Recording.start(outcome.step.name, task))
            self.n_recorded += 1
        else:
            self.n_finished_before += 1


@dataclass(frozen=True)
class _Recording:
    """A process that writes one step to W&B."""

    name: str
    started: float
    process: subprocess.Popen[bytes]
    errors: IO[bytes]

    @classmethod
    def start(cls, name: str, task: dict[str, Any]) -> _Recording:
        errors = tempfile.TemporaryFile()  # noqa: SIM115  closed when the process has been waited for
        with tempfile.TemporaryFile() as given:
            given.write(json.dumps(task).encode())
            given.seek(0)
            process = subprocess.Popen(
                [sys.executable, "-m", "crossdiff.dispatch.wandb_run"],
                stdin=given,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=_environment(),
                start_new_session=True,
            )
        return cls(name, time.monotonic(), process, errors)

    def wait(self, seconds: float) -> str | None:
        """Notice of a failed or offline recording; the process ends `seconds` after its start."""
        try:
            code = self.process.wait(max(0.0, self.started + seconds - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            return _failed(f"no answer within {seconds:.0f} s")
        self.errors.seek(0)
        lines = [line.strip() for line in self.errors.read().decode(errors="replace").splitlines()]
        self.errors.close()
        if code:
            return _failed(_reason(lines) or f"exit code {code}")
        return next((line.removeprefix(NOTICE) for line in lines if line.startswith(NOTICE)), None)


def _environment() -> dict[str, str]:
    """Without the service that this process may have: it would hold the ids of runs that others ended."""
    inherited = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    return inherited | {"WANDB_SILENT": "true"}


def _reason(lines: Sequence[str]) -> str | None:
    """The last exception of a process' errors, else its last line: W&B's telemetry may complain after it."""
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return next((line for line in (*reversed(errors), *reversed(lines)) if line), None)


def _failed(reason: str) -> str:
    return f"was not recorded ({reason}); the run is not affected"


def wandb_mode(settings: WandbLogger) -> tuple[str, str | None]:
    """Mode of recording, and a sentence where it is not the requested one."""
    asked = settings.mode or os.environ.get("WANDB_MODE") or "online"
    if asked != "online" or _has_login():
        return asked, None
    return "offline", (
        "no login found (WANDB_API_KEY or wandb login); recording offline, "
        "upload later with: wandb sync <store>/wandb/offline-run-*"
    )


def _has_login() -> bool:
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = (
        os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0].split(":")[0]
    )
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def wandb_task(
    outcome: Outcome, store: Path, settings: WandbLogger, *, group: str, mode: str
) -> dict[str, Any]:
    """Everything the recording process needs, as JSON."""
    step: Step = outcome.step
    return {
        "init": {
            "project": settings.project,
            "entity": settings.entity,
            "dir": str((settings.folder or store).absolute()),
            "id": step.key,
            "name": step.name,
            "group": group,
            "job_type": step.stage,
            "tags": list(settings.tags),
            "mode": mode,
        },
        "step": {"stage": step.stage, "label": step.label, "key": step.key},
        "inputs": step.inputs.model_dump(mode="json"),
        "parents": {
            role: {"name": f"{parent.stage}-{parent.key}", "folder": str(parent.folder(store).absolute())}
            for role, parent in step.parents.items()
        },
        "folder": str(step.folder(store).absolute()),
        "seconds": outcome.seconds,
        "counts": outcome.counts,
    }
