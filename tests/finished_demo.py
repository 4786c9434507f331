"""An experiment=demo whose report's parents are finished, with invented content."""

from __future__ import annotations

import shutil
from pathlib import Path

from crossdiff import config
from crossdiff.pipeline.plan import plan
from tests import composed, report_artifacts

PAIRS = ("toy_pt_it", "toy_pt_simpo")


def experiment(folder: Path, *overrides: str) -> config.Experiment:
    given = [
        "experiment=demo", "comparison.n_seeds=1", f"store={folder}/store", f"results_dir={folder}/results",
        f"export.folder={folder}/export", *overrides,
    ]  # fmt: skip
    return composed.experiment(*given)


def finished(asked: config.Experiment, artifacts: Path, *, without: tuple[str, ...] = ()) -> None:
    """Invented artifacts of the right schemas, where the report's finished parents would lie."""
    made = report_artifacts.build(artifacts, pairs=PAIRS).parents
    for role, step in plan(asked)[-1].parents.items():
        if role in made and role not in without:
            shutil.copytree(made[role], step.folder(asked.store))
