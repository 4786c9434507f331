"""Every kind of crosscoder on planted truth and on planted nulls, in one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from crossdiff.studies.planted.step import Contender, difference_contenders

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
HELD = ("held_tuned_frequent", "held_tuned_rare")
"""Share of the tuned-only latents whose direction some latent has, called or not."""
BANDS = {"frequent": "1 % of tokens and more", "rare": "0.3 to 1 %"}
TITLES = {
    "dedicated_feature": "dedicated feature (true form)",
    "dedicated": "dedicated, tied form",
    "mixed_loss": "BatchTopK, mixed loss",
}
"""What the table calls a kind whose name in the settings does not say enough."""
NOT_MEASURED, NO_CALL = "not measured", "no call"
WITHOUT_CALL = ("diff_sae",)
NOTES = (
    "Not measured here: planted behaviours found, Spearman and calibration of deltas, triggered behaviour. "
    "Planted activations have no documents, so nothing is labelled.",
)


class Contenders(PlantedTruth):
    """The planted study's kinds, each also trained in two worlds where every exclusive call is false."""

    QUESTION: ClassVar[str] = "Which kind of crosscoder finds most, and which makes the fewest false calls?"
    MAKERS: ClassVar[Mapping[str, Callable[..., tuple[Contender, ...]]]] = {
        **PlantedTruth.MAKERS,
        "_difference": difference_contenders,
    }

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
        """One row per kind: F1 by frequency, false calls per 1,000 alive latents of each null, its cost."""
        import pandas as pd

        true = [folder for name, folder in extras.items() if name.startswith("seed_")]
        rows = pd.concat([pd.read_csv(folder / "planted.csv") for folder in true])
        numbers: dict[str, dict[str, Any]] = {}
        for kind in dict.fromkeys(rows["contender"].tolist()):
            own = where(rows, contender=kind)
            numbers[kind] = {
                name: _mean(own, name) for name in (*FIGURES, *HELD, "sign_right", "train_seconds")
            }
            numbers[kind]["weights_mb"] = weights_mb([folder / kind for folder in true])
            for null in NULLS:
                folders = [f / kind for name, f in extras.items() if name.startswith(f"{null}_")]
                calls = kind not in WITHOUT_CALL
                numbers[kind][null] = false_calls([f for f in folders if f.is_dir()]) if calls else None
        caption = (
            f"Means over {len(self.seeds)} seed{'s' * (len(self.seeds) != 1)}. False: exclusive calls to "
            "either model per 1,000 alive latents, with Wilson's 95 % interval, which takes latents as "
            "independent. Held: tuned-only latents whose direction some latent has, called or not. "
            "Seconds: of training on this machine, with what else ran on it."
        )
        chart = Chart("contenders", "All kinds", caption, table=_table(numbers))
        return Findings(
            answer(numbers), notes=NOTES, charts=(chart,), numbers={"seeds": self.seeds, "kinds": numbers}
        )


def _mean(rows: pd.DataFrame, column: str) -> float:
    """Mean over the seeds that have a value; NaN where none has, or the column is unknown to the step."""
    if column not in rows:
        return float("nan")
    found = values(rows, column)
    found = found[~np.isnan(found)]
    return float(found.mean()) if len(found) else float("nan")


def weights_mb(folders: Sequence[Path]) -> float:
    """Size of one trained crosscoder on disk, in MB (float32); NaN where no folder holds one."""
    sizes = [
        path.stat().st_size for folder in folders for path in (folder / "crosscoder").glob("*.safetensors")
    ]
    return max(sizes) / 1e6 if sizes else float("nan")


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
    """Who leads in F1 and who is behind, by how much, and who makes false calls on a null."""
    said = [sentence for band in BANDS if (sentence := _ranked(numbers, band))]
    for null in NULLS:
        known = {kind: row[null] for kind, row in numbers.items() if row[null]}
        worst_first = sorted(known.items(), key=lambda item: -item[1]["value"])
        called = [
            f"{titled(kind)} {told(row['value'], '.0f')}" for kind, row in worst_first if row["n_calls"]
        ]
        said.append(f"False calls per 1,000 where the models are {null}: {', '.join(called) or 'none'}.")
    for kind in WITHOUT_CALL:
        if kind in numbers:
            row = numbers[kind]
            held, right = (told(row.get(name), ".0%") for name in (HELD[0], "sign_right"))
            said.append(
                f"{titled(kind)} makes no call: it holds {held} of the tuned-only directions of "
                f"{BANDS['frequent']}, and the sign of {right} of what it holds of one model alone is right."
            )
    return " ".join(said)


def _ranked(numbers: Mapping[str, Mapping[str, Any]], band: str) -> str:
    known = {kind: row[f"scaling_f1_{band}"] for kind, row in numbers.items()}
    order = sorted(
        ((round(f1, 3), kind) for kind, f1 in known.items() if f1 == f1), key=lambda item: -item[0]
    )
    if not order:
        return ""
    best = order[0][0]
    leaders = ", ".join(titled(kind) for f1, kind in order if f1 == best)
    behind = ", ".join(f"{titled(kind)} {told(f1, '.3f')}" for f1, kind in order if f1 < best)
    lead = f"Latents of {BANDS[band]}: highest F1 {told(best, '.3f')} ({leaders})"
    return f"{lead}; lower: {behind}." if behind else f"{lead}."


def titled(kind: str) -> str:
    """A kind's name as the page shows it."""
    return TITLES.get(kind, kind)


def _table(numbers: Mapping[str, Mapping[str, Any]]) -> Table:
    titles = ["Kind", "F1, 1 %", "F1, 0.3 to 1 %", "By norm, 1 %", "By norm, 0.3 to 1 %", "Precision"]
    titles += [f"False per 1,000, {null}" for null in NULLS]
    titles += ["Held, 1 %", "Held, 0.3 to 1 %", "Training seconds", "Weights, MB"]
    body = [
        [
            titled(kind),
            *(NO_CALL if kind in WITHOUT_CALL else _known(row[name]) for name in FIGURES),
            *(NO_CALL if kind in WITHOUT_CALL else _per_1000(row[null]) for null in NULLS),
            *(_known(row[name]) for name in HELD),
            _known(row["train_seconds"]),
            _known(row["weights_mb"]),
        ]
        for kind, row in numbers.items()
    ]
    return tables.plain(titles, body, numeric=range(1, len(titles)))


def _known(value: float) -> float | str:
    return value if value == value else NOT_MEASURED


def _per_1000(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return NOT_MEASURED
    return f"{found['value']:.1f} ({found['low']:.1f} to {found['high']:.1f})"
