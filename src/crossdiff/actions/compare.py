"""Results of many runs side by side."""

from __future__ import annotations

from collections.abc import Sequence

from crossdiff.command_settings import WandbLogger
from crossdiff.config import Experiment


def perform(experiments: Sequence[Experiment]) -> int:
    """Write one offline page about the results folders that `compare.runs` matches."""
    from crossdiff.report.runs import read_runs
    from crossdiff.report.runs_page import render

    asked, logger = experiments[0].compare, experiments[0].logger
    if asked.wandb and not isinstance(logger, WandbLogger):
        raise ValueError(
            f"compare.wandb={asked.wandb} saves into a W&B project; "
            "name it with logger=wandb logger.project=..."
        )
    runs = read_runs(asked.runs)
    asked.page.parent.mkdir(parents=True, exist_ok=True)
    title = f"{len(runs)} runs: {asked.runs}"
    asked.page.write_text(render(runs, title=title, folder=asked.page.parent), encoding="utf-8")
    print(f"comparison of {len(runs)} runs: {asked.page}", flush=True)
    if asked.wandb and isinstance(logger, WandbLogger):
        from crossdiff.dispatch.wandb_board import save_board

        print(f"W&B {asked.wandb}: {save_board(runs, logger, kind=asked.wandb, title=title)}", flush=True)
    return 0
