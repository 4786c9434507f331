"""Run a plan on this machine: finished steps are reused, interrupted ones resumed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from crossdiff.dispatch.side_by_side import run_side_by_side
from crossdiff.dispatch.store import (
    draft_folder,
    missing_steps,
    prepare_store,
    publish_job,
    warn_of_little_room,
)
from crossdiff.io import artifacts
from crossdiff.io.artifacts import lock
from crossdiff.io.environment import allow_open_files, peak_memory_mb, raised_by_us
from crossdiff.io.tables import errors_name
from crossdiff.pipeline.steps import Job, Step, group
from crossdiff.settings import Runtime

HASH_BELOW_BYTES = 2 * 1024**3


@dataclass(frozen=True)
class Outcome:
    """Outcome of one step in this run."""

    step: Step
    state: Literal["done", "reused"]
    seconds: float
    counts: dict[str, Any]


class PartlyRefused(ValueError):
    """Of steps that are made together some were refused (by name, the text is the first's), others `made`."""

    def __init__(self, refused: Mapping[str, ValueError], made: list[Outcome]) -> None:
        super().__init__(str(next(iter(refused.values()))))
        self.refused, self.made = dict(refused), made


def run_steps(
    steps: Sequence[Step],
    runtime: Runtime,
    *,
    finished: Callable[[Outcome], object] = lambda outcome: None,
    failed: Callable[[Step, ValueError], object] = lambda step, error: None,
    n_processes: int = 1,
) -> list[Outcome]:
    """Bring every step to a finished artifact, one line for every step; at most `n_processes` at a time.

    `finished` is called after every step, `failed` before a step's refusal (a ValueError that this package
    raised) is passed on.
    """
    allow_open_files()
    prepare_store(runtime.store)
    warn_of_little_room(steps, runtime.store)
    outcomes: list[Outcome] = []

    def done(made: list[Outcome]) -> None:
        for outcome in made:
            finished(outcome)
        outcomes.extend(made)

    jobs, run = group(steps), partial(_finish, runtime=runtime)
    if n_processes > 1:
        open_jobs = [job for job in jobs if missing_steps(job, runtime.store)]
        for job in jobs:
            done([] if job in open_jobs else run(job))
        refused = lambda job, error: failed(_refused(job, runtime), error)  # noqa: E731
        run_side_by_side(open_jobs, run, n_processes=n_processes, done=done, failed=refused)
        return outcomes
    for job in jobs:
        try:
            done(run(job))
        except ValueError as error:
            if raised_by_us(error):
                failed(_refused(job, runtime), error)
            raise
    return outcomes


def _refused(job: Job, runtime: Runtime) -> Step:
    """First unfinished step of a refused job."""
    return (missing_steps(job, runtime.store) or job.steps)[0]


def _finish(job: Job, runtime: Runtime) -> list[Outcome]:
    missing = missing_steps(job, runtime.store)
    made = [_reuse(step, runtime) for step in job.steps if step not in missing]
    return made + run_job(Job(missing), runtime) if missing else made


def rows_of(steps: Sequence[Step], outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Rows of summary.json for steps: name, key, state, seconds."""
    outcome_of = {outcome.step.key: outcome for outcome in outcomes}
    return [
        {"name": step.name, "key": step.key, "state": made.state, "seconds": round(made.seconds, 3)}
        for step in steps
        for made in [outcome_of[step.key]]
    ]


def run_job(job: Job, runtime: Runtime) -> list[Outcome]:
    """Compute one job in its draft folder and publish its artifacts; wait for another process that has it.

    Steps made together have one draft each; every finished one is published.
    """
    step = job.steps[0]
    parents = {role: parent.folder(runtime.store) for role, parent in step.parents.items()}
    for folder in parents.values():
        check(folder)
    (runtime.store / job.stage).mkdir(parents=True, exist_ok=True)
    with ExitStack() as locks:
        parts = [Job((each,)) for each in job.steps] if job.is_together else [job]
        for part in sorted(parts, key=lambda part: part.key):
            path = runtime.store / job.stage / f".{part.key}.lock"
            locks.enter_context(_sole_writer(path, part.name))
        made = [each for part in parts for each in _made_meanwhile(part, runtime)]
        left = [part for part in parts if missing_steps(part, runtime.store)]
        return [*made, *(_compute(left, parents, runtime) if left else [])]


def _made_meanwhile(job: Job, runtime: Runtime) -> list[Outcome]:
    return [] if missing_steps(job, runtime.store) else [_reuse(each, runtime) for each in job.steps]


def _compute(jobs: Sequence[Job], parents: Mapping[str, Path], runtime: Runtime) -> list[Outcome]:
    """Run jobs in one call of their stage, publish finished steps, then raise the first refusal."""
    whole = Job(tuple(step for job in jobs for step in job.steps))
    print(f"{whole.name} ...", flush=True)
    started, drafts = time.time(), [draft_folder(job, runtime.store) for job in jobs]
    for draft in drafts:
        draft.mkdir(exist_ok=True)
    together = whole.steps[0].definition.together
    with errors_name(drafts[0]):
        if together is None or len(jobs) == 1:
            counts = [whole.steps[0].definition.run(whole.inputs, parents, drafts[0], runtime)]
        else:
            counts = together.run([job.inputs for job in jobs], parents, drafts, runtime)
    seconds = time.time() - started
    outcomes: list[Outcome] = []
    for job, draft, found in zip(jobs, drafts, counts, strict=True):
        if isinstance(found, ValueError):
            continue
        publish_job(job, draft, _measured(found, seconds), runtime.store)
        print(f"{job.name}: {_line(found)} ({_duration(seconds)})", flush=True)
        outcomes += [Outcome(each, "done", seconds, found) for each in job.steps]
    refused = {
        job.name: found for job, found in zip(jobs, counts, strict=True) if isinstance(found, ValueError)
    }
    if refused and outcomes:
        raise PartlyRefused(refused, outcomes)
    for found in refused.values():
        raise found
    return outcomes


def check(folder: Path) -> None:
    """Refuse a damaged artifact; contents are hashed below 2 GiB, sizes compared above."""
    manifest = artifacts.read_manifest(folder)
    size = sum(entry["bytes"] for entry in manifest["files"].values())
    artifacts.verify(folder, hashes=size < HASH_BELOW_BYTES)


def _reuse(step: Step, runtime: Runtime) -> Outcome:
    folder = step.folder(runtime.store)
    check(folder)
    manifest = artifacts.read_manifest(folder)
    print(f"{step.name}: finished earlier ({step.key})", flush=True)
    return Outcome(step, "reused", manifest["seconds"], manifest["counts"])


def _measured(counts: dict[str, Any], seconds: float) -> dict[str, Any]:
    return {
        "counts": counts,
        "seconds": round(seconds, 3),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "peak_memory_mb": round(peak_memory_mb(), 1),
    }


@contextmanager
def _sole_writer(path: Path, name: str) -> Iterator[None]:
    """Keep the job's lock; the kernel frees it when the process dies."""
    with path.open("a") as handle:
        told = False
        while not lock(handle, wait=False):
            if not told:
                print(f"{name}: another process is computing it; waiting for its result", flush=True)
                told = True
            time.sleep(0.2)
        yield
    path.unlink(missing_ok=True)


def _line(counts: dict[str, Any]) -> str:
    shown = {name: value for name, value in counts.items() if isinstance(value, int | float | str)}
    return ", ".join(f"{name} {_number(value)}" for name, value in shown.items()) or "done"


def _number(value: float | str) -> str:
    match value:
        case bool() | str():
            return str(value)
        case int():
            return f"{value:,}"
    return f"{value:.4g}"


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
