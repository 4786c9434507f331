"""The process that writes one finished step to W&B: `python -m crossdiff.dispatch.wandb_run < task`."""

from __future__ import annotations

import csv
import json
import math
import sys
from pathlib import Path
from typing import Any

UNITS = {
    "seconds": "s",
    "peak_memory_mb": "MB",
    "train/tokens_per_s": "tokens/s",
    "train/fve_*": "share of the variance explained, 1 is perfect",
    "train/l0": "active latents per token",
    "train/dead_share": "share of the latents",
    "train/tokens": "tokens seen",
}
STEP = "trainer/global_step"
NOTICE = "notice: "
"""Prefix of a line that the run shows to its user."""


def main() -> None:
    """Record the task that standard input holds."""
    record(json.load(sys.stdin))


def record(task: dict[str, Any]) -> None:
    """One run: configuration, curves, figures, tables, the report, and the artifact by reference."""
    folder = Path(task["folder"])
    config = {
        "inputs": task["inputs"],
        **task["step"],
        "parents": {role: parent["name"] for role, parent in task["parents"].items()},
        "units": UNITS,
    }
    with opened(task["init"], config) as run:
        run.define_metric(STEP)
        run.define_metric("train/*", step_metric=STEP)
        for row in history(folder / "metrics.csv"):
            run.log(row)
        run.summary.update({**scalars(task["counts"]), "seconds": task["seconds"]})
        run.log(tables(folder) | figures(task))
        if not run.offline:  # offline, W&B takes no inputs; there the names in config.parents tell them
            for parent in task["parents"].values():
                run.use_artifact(reference(parent["name"], parent["folder"]))
        run.log_artifact(made(task))
        if (folder / "report.html").is_file():
            run.log_artifact(page(task))


def opened(init: dict[str, Any], config: dict[str, Any]) -> Any:
    """The run; recorded offline, with a notice, when the server refuses or does not answer."""
    import wandb
    from wandb.errors import Error

    options = wandb.Settings(console="off", init_timeout=30, x_disable_stats=True, disable_git=True)
    rest = {"config": config, "resume": "allow", "settings": options}
    try:
        return wandb.init(**init, **rest)
    except Error as error:
        if init["mode"] == "offline":
            raise
        wandb.teardown()
        told = str(error).splitlines()[0] if str(error) else type(error).__name__
        print(
            f"{NOTICE}is recorded offline ({told}); upload later with: "
            f"wandb sync {init['dir']}/wandb/offline-run-*",
            file=sys.stderr,
        )
        return wandb.init(**{**init, "mode": "offline"}, **rest)


def history(path: Path) -> list[dict[str, float]]:
    """Rows of a training's metrics.csv as `train/<column>`; empty cells are left out."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    return [
        {STEP: int(row["step"]), **{f"train/{name}": float(cell) for name, cell in row.items() if cell}}
        for row in rows
    ]


def scalars(counts: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Numbers and words of nested counts under dotted names; NaN is left out."""
    numbers: dict[str, Any] = {}
    for name, value in counts.items():
        match value:
            case dict():
                numbers |= scalars(value, f"{prefix}{name}.")
            case float() if math.isnan(value):
                continue
            case bool() | int() | float() | str():
                numbers[f"{prefix}{name}"] = value
    return numbers


def tables(folder: Path) -> dict[str, Any]:
    """The delta and latent tables among the step's files."""
    import pandas as pd
    import wandb

    from crossdiff.io.tables import read_deltas

    frames = {path.stem: read_deltas(path) for path in sorted(folder.glob("deltas*.csv"))}
    frames |= {path.stem: pd.read_parquet(path) for path in folder.glob("latents.parquet")}
    return {
        f"tables/{name}": wandb.Table(dataframe=frame.astype(object).where(frame.notna(), None))
        for name, frame in frames.items()
    }


def figures(task: dict[str, Any]) -> dict[str, Any]:
    """The report's plotly figures, drawn again from the report's parents."""
    if task["step"]["stage"] != "report":
        return {}
    from crossdiff.report.sections import page_context
    from crossdiff.report.sources import read_sources

    inputs = task["inputs"]
    parents = {role: Path(parent["folder"]) for role, parent in task["parents"].items()}
    sources = read_sources(
        parents,
        pairs=tuple(inputs["pairs"]),
        reference=inputs["reference"],
        treatment=inputs["treatment"],
    )
    return {f"figures/{name}": figure for name, figure in page_context(sources)["figures"].items()}


def made(task: dict[str, Any]) -> Any:
    """The step's artifact by reference, with the names of its parents."""
    step = task["step"]
    artifact = reference(f"{step['stage']}-{step['key']}", task["folder"])
    artifact.metadata["parents"] = {role: parent["name"] for role, parent in task["parents"].items()}
    return artifact


def reference(name: str, folder: str) -> Any:
    """An artifact `<stage>-<key>` whose files stay in the store; they are neither copied nor hashed."""
    import wandb

    artifact = wandb.Artifact(name, type=name.partition("-")[0], metadata={"folder": folder})
    artifact.add_reference(Path(folder).as_uri(), checksum=False)
    return artifact


def page(task: dict[str, Any]) -> Any:
    """The report as a file."""
    import wandb

    artifact = wandb.Artifact(f"page-{task['step']['key']}", type="page")
    artifact.add_file(str(Path(task["folder"]) / "report.html"))
    return artifact


if __name__ == "__main__":
    main()
