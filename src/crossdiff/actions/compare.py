"""`action=compare`: the results of many runs on one page, and as a W&B report or workspace."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Literal

from crossdiff.command_settings import WandbLogger
from crossdiff.config import Experiment
from crossdiff.dispatch.loggers import wandb_mode
from crossdiff.dispatch.wandb_run import STEP
from crossdiff.report.runs import Run


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
        print(f"W&B {asked.wandb}: {save_board(runs, logger, kind=asked.wandb, title=title)}", flush=True)
    return 0


CURVES = {
    "FVE": ("train/fve_base", "train/fve_tuned"),
    "L0": ("train/l0",),
    "Dead share": ("train/dead_share",),
}
MERITS = {
    "train": ("fve_base", "fve_tuned", "l0", "dead_share"),
    "scale": ("n_exclusive_tuned", "n_exclusive_base"),
}
"""Stage -> figures in the summaries of its W&B runs."""
AXES = {"layer": "inputs.layer", "dictionary size": "inputs.dictionary.n_latents", "seed": "inputs.seed"}
"""Axis of the comparison -> its key in the configuration of a W&B training run."""


def save_board(
    runs: Sequence[Run], logger: WandbLogger, *, kind: Literal["report", "workspace"], title: str
) -> str:
    """Save a report or a workspace about the W&B runs of these results; returns its address.

    Runs are found by their ids, which are step keys: they must have been recorded with `logger=wandb`.
    """
    try:
        import_module("wandb_workspaces")
    except ImportError:
        raise ValueError(
            f"compare.wandb={kind} needs the package wandb-workspaces; pip install "
            "'crossdiff[workspaces]', or leave compare.wandb out: the page has the same figures"
        ) from None
    mode, notice = wandb_mode(logger)
    if mode != "online":
        raise ValueError(
            f"compare.wandb={kind} needs W&B online, and it is {mode} ({notice or 'logger.mode'}); "
            "log in with wandb login, or leave compare.wandb out: the page has the same figures"
        )
    return _saved(_report(runs, logger, title) if kind == "report" else _workspace(runs, logger, title), kind)


def _saved(board: Any, kind: str) -> str:
    from wandb.errors import Error

    try:
        board.save()
    except (Error, OSError, ValueError) as error:
        raise ValueError(
            f"W&B refused the {kind} ({error}); the page is written, give compare.wandb again later"
        ) from None
    return str(board.url)


def keys(runs: Sequence[Run], stage: str) -> list[str]:
    """Ids of the W&B runs of one stage."""
    step_keys = [key for run in runs for name, key in run.steps if name.partition(" ")[0] == stage]
    return list(dict.fromkeys(step_keys))


def _report(runs: Sequence[Run], logger: WandbLogger, title: str) -> Any:
    api: Any = import_module("wandb_workspaces.reports.v2")
    expr: Any = import_module("wandb_workspaces.expr")

    def grid(stage: str, panels: list[Any]) -> Any:
        of_stage = expr.Metric("ID").isin(keys(runs, stage))
        runset = api.Runset(
            project=logger.project, entity=logger.entity or "", name=stage, filters=expr.And(of_stage)
        )
        return api.PanelGrid(runsets=[runset], panels=panels)

    blocks: list[Any] = [api.P(f"{len(runs)} runs side by side: {', '.join(run.name for run in runs)}.")]
    blocks += [api.H2("Training"), grid("train", _training_panels(api))]
    blocks += [api.H2("Exclusive latents"), grid("scale", [_bars(api, "scale")])]
    if any(run.compared for run in runs):
        blocks += [
            api.H2("Deltas"),
            grid("compare", [api.WeavePanelSummaryTable(table_name="tables/deltas")]),
        ]
    return api.Report(
        project=logger.project, entity=logger.entity or "", title=title, width="fluid", blocks=blocks,
        description="Written by crossdiff action=compare.",
    )  # fmt: skip


def _workspace(runs: Sequence[Run], logger: WandbLogger, title: str) -> Any:
    api: Any = import_module("wandb_workspaces.reports.v2")
    workspaces: Any = import_module("wandb_workspaces.workspaces")

    step_keys = [key for stage in ("train", "scale", "compare") for key in keys(runs, stage)]
    return workspaces.Workspace(
        name=title,
        project=logger.project,
        entity=logger.entity or "",
        sections=[
            workspaces.Section(name="Training", panels=_training_panels(api), is_open=True),
            workspaces.Section(name="Exclusive latents", panels=[_bars(api, "scale")], is_open=True),
        ],
        runset_settings=workspaces.RunsetSettings(
            filters=workspaces.And(workspaces.Metric("ID").isin(step_keys))
        ),
    )


def _training_panels(api: Any) -> list[Any]:
    curves = [api.LinePlot(title=title, x=STEP, y=list(names)) for title, names in CURVES.items()]
    over = [
        api.ScatterPlot(
            title=f"{merit} over {axis}", x=api.Config(where), y=api.SummaryMetric(merit), running_ymean=True
        )
        for axis, where in AXES.items()
        for merit in ("fve_tuned", "l0")
    ]
    return [*curves, _bars(api, "train"), *over]


def _bars(api: Any, stage: str) -> Any:
    return api.BarPlot(title=stage, metrics=[api.SummaryMetric(name) for name in MERITS[stage]])
