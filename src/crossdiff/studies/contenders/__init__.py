"""Every kind of crosscoder on planted truth, on planted nulls and on the toy, in one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from crossdiff.io.tables import alive, read_table, values, where
from crossdiff.report.runs import RunProducts
from crossdiff.report.study_page import Chart, Findings
from crossdiff.stages.study import Asked, Changes, ExtraStep
from crossdiff.statistics.intervals import wilson_rate
from crossdiff.studies.contenders.on_toy import toy_extras, toy_numbers, toy_runs
from crossdiff.studies.contenders.shown import (
    FIGURES,
    HELD,
    WITHOUT_CALL,
    answer,
    ceiling_note,
    contenders_table,
    false_calls_chart,
    titled,
)
from crossdiff.studies.outputs import Outputs
from crossdiff.studies.planted import PlantedTruth, f1_chart, planted_bands
from crossdiff.studies.planted.step import Contender, difference_contenders

if TYPE_CHECKING:
    import pandas as pd

NOTHING_OWN = {"n_base_only": 0, "n_tuned_only": 0, "n_decoupled": 0}
NULLS: dict[str, dict[str, int]] = {
    "same": {**NOTHING_OWN, "n_rotated": 0, "n_shrunken": 0},
    "moved": NOTHING_OWN,
}
"""Worlds in which no latent belongs to one model: `same` has shared ones alone, `moved` rotated and weak
copies too, so that the models differ and yet own nothing."""
OUTPUTS = "outputs_"
"""Beginning of the names of the steps of the baseline without a crosscoder."""
NO_DOCUMENTS = (
    "Not measured here: planted changes found, Spearman and calibration of deltas, intervals between seeds, "
    "the triggered behaviour. They need models and documents, and planted activations have none: name kinds "
    "in study.toy_kinds (size=toy has all)."
)
WITH_DOCUMENTS = (
    "On the toy, one crosscoder per pair: planted changes are those from it to simpo, with the 95 % interval "
    "of a category on the side of the planted change; calibration is the number of intervals that hold the "
    "change that the activations hold. Of diff-SAE the compared latents are those that go up. The seed "
    "null's interval takes categories as independent, though those of one comparison share their latents.",
    "Triggered: a latent is chosen on half of the chats by its peak in the answer, and its isolation score "
    "F1 (1 - FPR) is that of the other half; null: 95th percentile of the score where triggered chats are "
    "drawn at random. A method finds the behaviour if its best called latent beats the null; diff-SAE, which "
    "makes no call, if its best latent does. Topics have no score: they are of tokens and not of chats.",
)


class Contenders(PlantedTruth):
    """The planted study's kinds, each also trained in two worlds where every exclusive call is false."""

    QUESTION: ClassVar[str] = "Which kind of crosscoder finds most, and which makes the fewest false calls?"
    MAKERS: ClassVar[Mapping[str, Callable[..., tuple[Contender, ...]]]] = {
        **PlantedTruth.MAKERS,
        "_difference": difference_contenders,
    }

    toy_kinds: tuple[str, ...] = ()
    """Kinds that are run on the toy too, with documents, labels and deltas; `all` stands for every kind."""
    trigger_share: float = Field(default=0.01, ge=0, lt=0.05)
    """Of the toy's chats, fewer than the 5 % in which a latent can be active; with 0 it is the toy of
    the other studies, which a store may have already."""
    toy_null: bool = True
    """Whether they are also compared between two seeds of the first pair."""

    def runs(self, experiment: Asked) -> Mapping[str, Changes]:
        """The comparisons of the kinds on the toy."""
        asked = {"trigger_share": self.trigger_share, "null": self.toy_null}
        return toy_runs(experiment, self._on_toy(), **asked) if self.toy_kinds else {}

    def groundwork(self, experiment: Asked) -> Mapping[str, Changes]:
        """The toy for the baseline without a crosscoder."""
        toy = experiment.organism.model_copy(update={"trigger_share": self.trigger_share})
        return {"pairs": {"organism": toy}} if self.toy_kinds else {}

    def _on_toy(self) -> list[Contender]:
        every = self.model_copy(update={"only": ()})._contenders()
        known = {kind.name: kind for kinds in every for kind in kinds}
        names = list(known) if self.toy_kinds == ("all",) else self.toy_kinds
        if unknown := [name for name in names if name not in known]:
            raise ValueError(f"study.toy_kinds={unknown}: choose from all, {', '.join(known)}")
        return [known[name] for name in names]

    def extras(self, experiment: Asked) -> Mapping[str, ExtraStep]:
        """The steps of `experiment=planted`, which are shared with it, those of the nulls, and of the toy."""
        found = dict(super().extras(experiment))
        if self.toy_kinds:
            found |= toy_extras(experiment, self._on_toy(), trigger_share=self.trigger_share)
            found |= {f"{OUTPUTS}{name}": step for name, step in Outputs().extras(experiment).items()}
        for null, changes in NULLS.items():
            world = self.planted.model_copy(update=changes)
            asked = self.model_copy(update={"planted": world})
            for name, step in PlantedTruth.extras(asked, experiment).items():
                found[f"{null}_{name}"] = replace(step, label=f"{null} {step.label}")
        return found

    def analyse(self, runs: Mapping[str, RunProducts], extras: Mapping[str, Path]) -> Findings:
        """One row per kind: F1 by frequency, false calls per 1,000 alive latents of each null, its cost."""
        import pandas as pd

        true = [folder for name, folder in extras.items() if name.startswith("seed_")]
        rows = pd.concat([pd.read_csv(folder / "planted.csv") for folder in true])
        numbers: dict[str, dict[str, Any]] = {}
        for kind in dict.fromkeys([*rows["contender"].tolist(), *(kind.name for kind in self._on_toy())]):
            own = where(rows, contender=kind)
            numbers[kind] = {
                name: _mean(own, name) for name in (*FIGURES, *HELD, "sign_right", "train_seconds")
            }
            numbers[kind]["weights_mb"] = weights_mb([folder / kind for folder in true])
            numbers[kind]["toy"] = toy_numbers(kind, runs, extras)
            for null in NULLS:
                folders = [f / kind for name, f in extras.items() if name.startswith(f"{null}_")]
                calls = kind not in WITHOUT_CALL
                numbers[kind][null] = false_calls([f for f in folders if f.is_dir()]) if calls else None
        caption = (
            f"Means over {len(self.seeds)} seed{'s' * (len(self.seeds) != 1)}. False: exclusive calls to "
            "either model per 1,000 alive latents, with Wilson's 95 % interval, which takes latents as "
            "independent. Held: tuned-only latents whose direction some latent has, called or not. "
            "Seconds: of training on this machine, with what else ran on it."
            + ceiling_note({kind: row["toy"] for kind, row in numbers.items()})
        )
        topics = self._topics(extras)
        charts = [Chart("contenders", "All kinds", caption, table=contenders_table(numbers, topics))]
        named = rows.assign(contender=[titled(kind) for kind in rows["contender"]])
        charts += [f1_chart(named, band) for band in planted_bands(rows)]
        charts.append(false_calls_chart(numbers))
        notes = WITH_DOCUMENTS if self.toy_kinds else (NO_DOCUMENTS,)
        counted = {"seeds": self.seeds, "kinds": numbers, "topics": topics}
        return Findings(answer(numbers), notes=notes, charts=tuple(charts), numbers=counted)

    def _topics(self, extras: Mapping[str, Path]) -> dict[str, Any] | None:
        """The changes of the topics' categories against the planted ones; None where they were not made."""
        own = {name.removeprefix(OUTPUTS): f for name, f in extras.items() if name.startswith(OUTPUTS)}
        return Outputs().analyse({}, own).numbers["changes"] if own else None


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
    per_1000 = wilson_rate(n_calls, n_alive, per=1000)
    return per_1000 and {"n_calls": n_calls, "n_alive": n_alive, **per_1000}
