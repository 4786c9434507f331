"""action=status, cancel and retry, and dispatch.wait, for a submitted plan."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from crossdiff.dispatch.graph import Node, graph_table, read_graph, totals, why
from crossdiff.dispatch.register import Register, cancel_jobs, job_states, jobs_of
from crossdiff.dispatch.slurm import Submission, Submitted, submit
from crossdiff.pipeline.steps import Step

EXIT_FAILED = 1


def perform(action: str, asked: Submission) -> int:
    """One of run, status, cancel and retry with dispatch=slurm; returns the exit code."""
    store = asked.runtime.store
    match action:
        case "run":
            return _run(asked)
        case "retry":
            for node in read_graph(asked.steps, store):
                if node.state in ("failed", "cancelled") and node.entry:
                    print(f"{node.step.name}: {node.state} (job {node.entry.job}), goes back into the queue")
            return _run(asked)
        case "cancel":
            return cancel(asked.steps, store)
        case "status":
            print(graph_table(read_graph(asked.steps, store)))
            return 0
    raise ValueError(
        f"action={action} has no meaning with dispatch=slurm; choose run, status, cancel or retry"
    )


def _run(asked: Submission) -> int:
    print(described(submit(asked), asked), flush=True)
    store = asked.runtime.store
    code = follow(asked.steps, store, poll_seconds=asked.dispatch.poll_seconds) if asked.dispatch.wait else 0
    for publication in asked.publications:
        if publication.report.is_finished(store):
            print(f"report: {publication.publish(store, asked.tracker)}", flush=True)
    return code


def described(result: Submitted, asked: Submission) -> str:
    """Text of a submission: submitted, queued and finished steps, and the next command."""
    fresh = {step.key for job, _ in result.new for step in job.steps}
    earlier = [step for step in asked.steps if step.key in result.jobs and step.key not in fresh]
    lines = [f"submitted {job.name} as job {number}" for job, number in result.new]
    lines += [f"already queued: {step.name} (job {result.jobs[step.key]})" for step in earlier]
    finished = len(asked.steps) - len(fresh) - len(earlier)
    lines.append(
        f"{len(result.new)} jobs submitted for {len(fresh)} steps; {len(earlier)} steps were queued, "
        f"{finished} finished"
    )
    if result.jobs and not asked.dispatch.wait:
        lines.append("look again with the same command and action=status, cancel or retry")
    return "\n".join(lines)


def cancel(steps: Sequence[Step], store: Path) -> int:
    """Cancel the plan's queued jobs, except those that queued steps of another plan wait for."""
    register = Register(store)
    with register.locked():
        graph = [node for node in read_graph(steps, store) if node.is_queued]
        entries = register.read(node.step.key for node in graph)
        kept = _needed_elsewhere(graph, {step.key for step in steps}, register)
        jobs = sorted(jobs_of({key: entry for key, entry in entries.items() if key not in kept}))
        cancel_jobs(jobs)
    for node in graph:
        assert node.entry is not None
        if node.entry.job in jobs:
            print(f"cancelled {node.step.name} (job {node.entry.job})")
        else:
            print(f"kept {node.step.name} (job {node.entry.job}): {kept[node.step.key]} waits for it")
    print(f"{len(jobs)} jobs cancelled")
    return 0


def _needed_elsewhere(graph: Sequence[Node], plan: set[str], register: Register) -> dict[str, str]:
    """Keys of the ancestors of queued steps outside the plan, with that step's name."""
    entries = {key: entry for key, entry in register.everything().items() if key not in plan}
    if not graph or not entries:
        return {}
    states = job_states(entry.job for entry in entries.values())
    kept: dict[str, str] = {}
    for entry in entries.values():
        if states[entry.job].is_queued:
            kept |= dict.fromkeys(entry.needs, entry.name)
    for node in reversed(graph):
        if node.step.key in kept:
            for parent in node.step.parents.values():
                kept.setdefault(parent.key, kept[node.step.key])
    return kept


def follow(steps: Sequence[Step], store: Path, *, poll_seconds: float) -> int:
    """Show the graph until nothing is queued: redrawn on a terminal, else a line per change."""
    shown: list[Node] = []
    drawn = 0
    while True:
        graph = read_graph(steps, store)
        if sys.stdout.isatty():
            drawn = _redraw(graph, drawn)
        else:
            _print_changes(shown, graph)
        shown = graph
        if not any(node.is_queued for node in graph):
            break
        time.sleep(poll_seconds)
    broken = [node for node in graph if node.state != "finished"]
    for node in broken:
        for line in why(node, graph) or [node.state]:
            print(line if line.startswith("  ") else f"{node.step.name}: {line}", file=sys.stderr)
    return EXIT_FAILED if broken else 0


def screenful(graph: Sequence[Node], *, columns: int, rows: int) -> list[str]:
    """The table cut to the terminal; when it is too high only what runs or failed, and the totals."""
    lines = graph_table(graph).splitlines()
    if len(lines) >= rows:
        busy = graph_table([node for node in graph if node.state in ("running", "failed")]).splitlines()
        lines = [*busy[:-1][: rows - 2], totals(graph)]
    return [line[: columns - 1] for line in lines]


def _redraw(graph: Sequence[Node], drawn: int) -> int:
    """Draw the table over the last one; returns its height."""
    size = shutil.get_terminal_size()
    lines = screenful(graph, columns=size.columns, rows=size.lines)
    up = f"\x1b[{drawn}F\x1b[J" if drawn else ""
    print(up + "\n".join(lines), flush=True)
    return len(lines)


def _print_changes(before: Sequence[Node], now: Sequence[Node]) -> None:
    states = {node.step.key: node.state for node in before}
    changed = [node for node in now if states.get(node.step.key) != node.state]
    for node in changed:
        job = f" (job {node.entry.job})" if node.entry else ""
        print(f"{node.step.name}: {node.state}{job}", flush=True)
    if changed:
        print(totals(now), flush=True)
