"""Study: in one dictionary over base and both tuned models, which latents belong to which model?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from crossdiff.io.tables import read_json
from crossdiff.models.pair import ModelSettings
from crossdiff.report import tables
from crossdiff.report.formatting import tile, told
from crossdiff.report.runs import RunProducts
from crossdiff.report.study_page import Chart, Findings
from crossdiff.stages.study import Asked, Changes, ExtraStep, From, Study, train_inputs
from crossdiff.studies.several.step import SeveralInputs

STEP = "several"


class ThreeModels(Study):
    """One crosscoder over all models of the experiment's pairs."""

    QUESTION: ClassVar[str] = "In one dictionary over all models, which latents belong to which?"

    def runs(self, experiment: Asked) -> Mapping[str, Changes]:
        """None: reports are of two models."""
        return {}

    def groundwork(self, experiment: Asked) -> Mapping[str, Changes]:
        """The experiment's tokens and harvests."""
        return {"pairs": {}}

    def extras(self, experiment: Asked) -> Mapping[str, ExtraStep]:
        """Training and scaling over all models, in one step."""
        models = _models(experiment)
        train = train_inputs(experiment, seed=experiment.seed)
        names = tuple(model.name for model in models)
        inputs = SeveralInputs(train=train, models=names, selection=experiment.selection)
        roles = ["harvest_base", *(f"harvest_tuned_{i}" for i in range(1, len(models)))]
        parents = {"tokens": From("pairs", "tokens")}
        parents |= {role: From("pairs", "harvest", name) for role, name in zip(roles, names, strict=True)}
        return {STEP: ExtraStep("several", " ".join(names), inputs, parents)}

    def analyse(self, runs: Mapping[str, RunProducts], extras: Mapping[str, Path]) -> Findings:
        """Counts of exclusive latents of every model against every other."""
        record = read_json(extras[STEP] / "several.json")
        explained = [f"{name} {told(fve, '.3f')}" for name, fve in record["fve"].items()]
        return Findings(
            _answer(record),
            notes=(f"FVE: {', '.join(explained)}.",),
            tiles=(
                tile(
                    "Alive latents",
                    f"{record['n_alive']:,} of {record['n_latents']:,}",
                    f"L0 {told(record['l0'], '.1f')}",
                ),
            ),
            charts=(_chart(record),),
            numbers=record,
        )


def _models(experiment: Asked) -> list[ModelSettings]:
    """Base first, then the tuned models, each once."""
    models: dict[str, ModelSettings] = {}
    for pair in experiment.pairs:
        for model in (pair.base, pair.tuned):
            known = models.setdefault(model.name, model)
            if known != model:
                raise ValueError(
                    f"two models are called {model.name} ({known.path} and {model.path}); "
                    "give them different names"
                )
    if len(models) < 3:
        raise ValueError(
            f"this study needs three models or more, the experiment has {', '.join(models)}; "
            "give comparison=... (two pairs with a shared base)"
        )
    return list(models.values())


def _answer(record: Mapping[str, Any]) -> str:
    exclusive = "; ".join(f"{counts['all others']} to {name}" for name, counts in record["exclusive"].items())
    lacking = "; ".join(f"{count} missing in {name} alone" for name, count in record["lacking"].items())
    return (
        f"Of {record['n_alive']:,} alive latents, exclusive against all other models: {exclusive}. {lacking}."
    )


def _chart(record: Mapping[str, Any]) -> Chart:
    caption = (
        "Latents exclusive to the model of the row, against the model of the column and against all others."
    )
    columns = [*record["models"], "all others"]
    body = [
        [name, *(counts.get(column) for column in columns)] for name, counts in record["exclusive"].items()
    ]
    table = tables.plain(["Exclusive to", *columns], body, numeric=range(1, len(columns) + 1))
    return Chart("exclusive", "Exclusive latents of every model against every other", caption, table=table)
