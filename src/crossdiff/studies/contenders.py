"""Every kind of crosscoder on planted truth and on planted nulls, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from crossdiff.io.tables import alive, read_table, values, where
from crossdiff.report import tables
from crossdiff.report.formatting import told
from crossdiff.report.runs import RunProducts
from crossdiff.report.study_page import Chart, Findings
from crossdiff.stages.study import Asked, ExtraStep
from crossdiff.statistics.intervals import wilson
from crossdiff.studies.planted import PlantedTruth

if TYPE_CHECKING:
    import pandas as pd

    from crossdiff.report.tables import Table

NOTHING_OWN = {"n_base_only": 0, "n_tuned_only": 0, "n_decoupled": 0}
NULLS: dict[str, dict[str, int]] = {
    "same": {**NOTHING_OWN, "n_rotated": 0, "n_shrunken": 0},
    "moved": NOTHING_OWN,
}
"""Worlds in which no latent belongs to one model: `same` has shared ones alone, `moved` rotated and weak
copies too, so that the models differ and yet own nothing."""
FIGURES = (
    "scaling_f1_frequent",
    "scaling_f1_rare",
    "norm_f1_frequent",
    "norm_f1_rare",
    "scaling_precision_all",
)


class Contenders(PlantedTruth):
    """The planted study's kinds, each also trained in two worlds where every exclusive call is false."""

    QUESTION: ClassVar[str] = "Which kind of crosscoder finds most, and which is fooled least?"

    def extras(self, experiment: Asked) -> Mapping[str, ExtraStep]:
        """The steps of `experiment=planted`, which are shared with it, and those of the nulls."""
        found = dict(super().extras(experiment))
        for null, changes in NULLS.items():
            world = self.planted.model_copy(update=changes)
            asked = self.model_copy(update={"planted": world})
            for name, step in PlantedTruth.extras(asked, experiment).items():
                found[f"{null}_{name}"] = ExtraStep("planted", f"{null} {step.label}", step.inputs)
        return found

    def analyse(self, runs: Mapping[str, RunProducts], extras: Mapping[str, Path]) -> Findings:
        """One row per kind: F1 by frequency, false calls per 1,000 alive latents of each null, seconds."""
        import pandas as pd

        true = [folder for name, folder in extras.items() if name.startswith("seed_")]
        rows = pd.concat([pd.read_csv(folder / "planted.csv") for folder in true])
        numbers: dict[str, dict[str, Any]] = {}
        for kind in dict.fromkeys(rows["contender"].tolist()):
            own = where(rows, contender=kind)
            numbers[kind] = {name: _mean(own, name) for name in (*FIGURES, "train_seconds")}
            for null in NULLS:
                folders = [f / kind for name, f in extras.items() if name.startswith(f"{null}_")]
                numbers[kind][null] = false_calls([f for f in folders if f.is_dir()])
        caption = (
            "Means over seeds; false calls with Wilson's 95 % interval, which takes latents as independent. "
            "Seconds: this machine's while it trained. A dash: nothing to divide by."
        )
        chart = Chart("contenders", "All kinds", caption, table=_table(numbers))
        note = "Planted activations have no documents: labels, deltas and behaviour are not compared here."
        return Findings(answer(numbers), notes=(note,), charts=(chart,), numbers={"kinds": numbers})


def _mean(rows: pd.DataFrame, column: str) -> float:
    found = values(rows, column)
    found = found[~np.isnan(found)]
    return float(found.mean()) if len(found) else float("nan")


def false_calls(folders: list[Path]) -> dict[str, Any] | None:
    """Latents called exclusive to either model per 1,000 alive ones, over the seeds; None of nothing."""
    n_calls = n_alive = 0
    for folder in folders:
        table = read_table(folder / "latents.parquet", kind="latents")
        n_alive += len(alive(table))
        n_calls += sum(owner in ("tuned", "base") for owner in table["exclusive_to"])
    if not n_alive:
        return None
    low, high = wilson(n_calls, n_alive)
    per_1000 = {"value": 1000 * n_calls / n_alive, "low": 1000 * low, "high": 1000 * high}
    return {"n_calls": n_calls, "n_alive": n_alive, **per_1000}


def answer(numbers: Mapping[str, Mapping[str, Any]]) -> str:
    """Who has the highest F1, and whose calls on a null are not 0; all that share a place are named."""
    said = []
    for name, words in (("frequent", "1 % of tokens and more"), ("rare", "0.3 to 1 %")):
        known = {kind: row[f"scaling_f1_{name}"] for kind, row in numbers.items()}
        known = {kind: f1 for kind, f1 in known.items() if f1 == f1}
        if known:
            best = max(known.values())
            leaders = ", ".join(kind for kind, f1 in known.items() if round(f1, 3) == round(best, 3))
            said.append(f"Latents of {words}: {leaders} has the highest F1, {told(best, '.3f')}.")
    for null in NULLS:
        fooled = {kind: row[null]["n_calls"] for kind, row in numbers.items() if row[null]}
        called = [f"{kind} {n}" for kind, n in fooled.items() if n]
        said.append(f"False calls where the models are {null}: {', '.join(called) or 'none of any kind'}.")
    return " ".join(said)


def _table(numbers: Mapping[str, Mapping[str, Any]]) -> Table:
    titles = ["Kind", "F1, 1 %", "F1, 0.3 to 1 %", "By norm, 1 %", "By norm, 0.3 to 1 %", "Precision"]
    titles += [f"False per 1,000, {null}" for null in NULLS]
    titles += ["Training seconds"]
    body = [
        [kind, *(row[name] for name in FIGURES), *(_told(row[null]) for null in NULLS), row["train_seconds"]]
        for kind, row in numbers.items()
    ]
    return tables.plain(titles, body, numeric=range(1, len(titles)))


def _told(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "–"
    return f"{found['value']:.1f} ({found['low']:.1f} to {found['high']:.1f})"
