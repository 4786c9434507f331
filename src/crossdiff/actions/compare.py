"""Results of many runs side by side."""

from __future__ import annotations

from collections.abc import Sequence

from crossdiff.config import Experiment


def perform(experiments: Sequence[Experiment]) -> int:
    """Write one offline page about the results folders that `compare.runs` matches."""
    from crossdiff.report.runs import read_runs
    from crossdiff.report.runs_page import render

    asked = experiments[0].compare
    runs = read_runs(asked.runs)
    asked.page.parent.mkdir(parents=True, exist_ok=True)
    title = f"{len(runs)} runs: {asked.runs}"
    asked.page.write_text(render(runs, title=title, folder=asked.page.parent), encoding="utf-8")
    print(f"comparison of {len(runs)} runs: {asked.page}", flush=True)
    return 0
