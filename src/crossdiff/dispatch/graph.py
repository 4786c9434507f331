"""The plan as a graph of jobs: state of every step, and reasons of failures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from crossdiff.dispatch.register import Entry, JobState, Register, exit_code, job_states, jobs_of, last_lines
from crossdiff.pipeline.steps import Step

State = Literal["finished", "running", "waiting", "failed", "cancelled", "to do"]

CANNOT_SEE_STORE = "0:53"
"""Exit code and signal of a batch job whose log file could not be opened on the node."""


@dataclass(frozen=True)
class Node:
    """One step of the plan, and its last submission if its artifact is missing."""

    step: Step
    state: State
    entry: Entry | None = None
    job: JobState | None = None

    @property
    def is_queued(self) -> bool:
        """Whether a running or waiting job will make the step."""
        return self.state in ("running", "waiting")


def read_graph(steps: Sequence[Step], store: Path) -> list[Node]:
    """State of every step, in plan order."""
    missing = {step.key for step in steps if not step.is_finished(store)}
    entries = Register(store).read(missing)
    states = job_states(jobs_of(entries)) if entries else {}
    return [_node(step, entries, states, store) for step in steps]


def _node(step: Step, entries: dict[str, Entry], states: dict[str, JobState], store: Path) -> Node:
    entry = entries.get(step.key)
    if entry is None or step.is_finished(store):
        return Node(step, "finished" if step.is_finished(store) else "to do")
    job = states[entry.job]
    for part, log in entry.parts.items():
        if states[part].phase in ("running", "failed", "cancelled") and job.phase in ("waiting", "cancelled"):
            entry, job = entry.model_copy(update={"job": part, "log": log}), states[part]
            break
    if job.is_queued:
        return Node(step, "running" if job.phase == "running" else "waiting", entry, job)
    if job.phase in ("cancelled", "waiting"):
        return Node(step, "cancelled", entry, job)
    return Node(step, "failed", entry, job)


def why(node: Node, graph: Sequence[Node]) -> list[str]:
    """For a failed or cancelled step: one sentence, then the last lines of its log."""
    entry, job = node.entry, node.job
    if entry is None or job is None:
        return []
    if node.state == "cancelled":
        needed = ancestors(node.step)
        broken = [other for other in graph if other.step.key in needed and other.state == "failed"]
        if broken:
            return [f"cancelled, because {', '.join(other.step.name for other in broken)} failed"]
        return ["cancelled"]
    code = exit_code(entry.job)
    if code == CANNOT_SEE_STORE or (job.state == "FAILED" and not entry.log.is_file()):
        return [
            f"job {entry.job} left no log at {entry.log}: the compute node does not see the store, or may "
            "not write there; put the store on a file system that all nodes share: store=/shared/..."
        ]
    if job.phase == "gone":
        sentence = f"SLURM no longer knows job {entry.job}, and it left no artifact"
    elif job.phase == "finished":
        sentence = f"job {entry.job} ended without an error, but left no artifact in this store"
    else:
        sentence = f"job {entry.job} {job.state.lower().replace('_', ' ')}" + (
            f", exit {code}" if code else ""
        )
    return [f"{sentence}; log: {entry.log}", *(f"  | {line}" for line in last_lines(entry))]


def ancestors(step: Step) -> set[str]:
    """Keys of all ancestors of `step`."""
    keys: set[str] = set()
    front = list(step.parents.values())
    while front:
        parent = front.pop()
        if parent.key not in keys:
            keys.add(parent.key)
            front += parent.parents.values()
    return keys


def nearest(steps: Iterable[Step]) -> list[Step]:
    """Steps that are no ancestor of another one: their jobs wait for all others."""
    distinct = {step.key: step for step in steps}
    implied: set[str] = set()
    for step in distinct.values():
        implied |= ancestors(step)
    return [step for key, step in distinct.items() if key not in implied]


def graph_table(graph: Sequence[Node]) -> str:
    """Aligned columns: step, key, state, job, what it waits for, log; then why steps failed; then totals."""
    rows = [("step", "key", "state", "job", "after", "log"), *(_row(node, graph) for node in graph)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    rows.insert(1, tuple("-" * width for width in (*widths, 3)))
    lines = [_line(row, widths) for row in rows]
    for node in graph:
        if node.state in ("failed", "cancelled"):
            first, *rest = why(node, graph)
            lines += [f"{node.step.name}: {first}", *rest]
    return "\n".join([*lines, totals(graph)])


def totals(graph: Sequence[Node]) -> str:
    """Number of steps per state."""
    order: tuple[State, ...] = ("finished", "running", "waiting", "failed", "cancelled", "to do")
    counts = {state: sum(node.state == state for node in graph) for state in order}
    return f"{len(graph)} steps: " + ", ".join(f"{n} {state}" for state, n in counts.items() if n)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
    return "  ".join([*cells, row[-1]]).rstrip()


def _row(node: Node, graph: Sequence[Node]) -> tuple[str, ...]:
    job, log, after = "", "", ""
    if node.entry is not None:
        job = node.entry.job
        log = str(node.entry.log) if node.state in ("running", "failed") else ""
    if node.state in ("waiting", "to do"):
        others = {other.step.key: other for other in graph if other.state != "finished"}
        parents = nearest(parent for parent in node.step.parents.values() if parent.key in others)
        entries = [(others[parent.key].entry, parent) for parent in parents]
        after = ",".join(sorted({entry.job if entry else parent.name for entry, parent in entries}))
    if node.job and node.state == "waiting" and not after:
        after = f"({node.job.reason})" if node.job.reason else ""
    return (node.step.name, node.step.key, node.state, job, after, log)
