"""The plan as text: every step, its key, whether it is finished, what it costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from crossdiff.pipeline.jobs import group
from crossdiff.pipeline.steps import Cost, Step

HEADER = ("step", "key", "state", "GPU h", "CPU h", "disk GB", "API $")


def plan_table(steps: Sequence[Step], store: Path) -> str:
    """Aligned columns, one row per step, and the total of what is still to do."""
    repeated = {name for name, count in Counter(step.name for step in steps).items() if count > 1}
    rows = [HEADER, *(_row(step, store, by_layer=step.name in repeated) for step in steps)]
    left = remaining_cost(steps, store)
    finished = sum(step.is_finished(store) for step in steps)
    total = f"{finished} of {len(steps)} steps finished in store={store}; still to do: {describe(left)}"
    return f"{columns(rows)}\n{total}"


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Aligned text; the first row is the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def remaining_cost(steps: Sequence[Step], store: Path) -> Cost:
    """Summed cost of the jobs that are not finished; layers of one forward pass are paid once."""
    total = Cost()
    for job in group([step for step in steps if not step.is_finished(store)]):
        total = total + job.cost
    return total


def describe(cost: Cost) -> str:
    """One phrase for people."""
    return (
        f"{amount(cost.gpu_hours)} GPU-hours (one H200, estimated) or "
        f"{amount(cost.cpu_hours)} hours of 2 cores, "
        f"{amount(cost.disk_gb)} GB of disk, {amount(cost.api_usd)} $ of API calls"
    )


def layers_of(step: Step) -> tuple[int, ...]:
    """The layers of the harvests that a step stands on, its own included."""
    found = set(getattr(step.inputs, "layers", ()))
    return tuple(sorted(found.union(*(layers_of(parent) for parent in step.parents.values()))))


def _row(step: Step, store: Path, *, by_layer: bool) -> tuple[str, ...]:
    layers = layers_of(step) if by_layer else ()
    name = f"{step.name}, layer {' '.join(map(str, layers))}" if layers else step.name
    state = "finished" if step.is_finished(store) else "to do"
    cost = step.cost
    amounts = (cost.gpu_hours, cost.cpu_hours, cost.disk_gb, cost.api_usd)
    return (name, step.key, state, *(amount(value) for value in amounts))


def amount(value: float | None) -> str:
    """A cost for a table cell."""
    if value is None:
        return "unknown"
    if value == 0:
        return "0"
    if value < 0.005:
        return "<0.01"
    return f"{value:,.2f}" if value < 100 else f"{value:,.0f}"
