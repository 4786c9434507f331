"""Study: what do exclusive calls recover of activations whose latents are known?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from crossdiff.core.dictionary import encoder_flops
from crossdiff.io.tables import values, where
from crossdiff.report.formatting import tile, told
from crossdiff.report.runs import RunProducts
from crossdiff.report.study_page import Chart, Findings
from crossdiff.stages.study import Asked, Changes, ExtraStep, Study
from crossdiff.studies.planted.settings import PlantedSettings
from crossdiff.studies.planted.step import (
    Contender,
    PlantedInputs,
    contenders,
    latest_contenders,
    newer_contenders,
)
from crossdiff.training.settings import TrainingSettings

if TYPE_CHECKING:
    import pandas as pd

    from crossdiff.report.tables import Table

METHODS = {"norm": "by norm", "scaling": "by latent scaling"}
GROUPS = {"frequent": "1 % of tokens and more", "rare": "0.3 to 1 % of tokens", "scarce": "less than 0.3 %"}
REQUIRED = {"frequent": 0.95, "rare": 0.85}
"""F1 of the tuned-only call by latent scaling with BatchTopK in the plain world, mean over seeds."""
SHOWN = (
    "fve_tuned",
    "planted_l0",
    "l0",
    "dead_share",
    "mean_max_cosine",
    "by_norm",
    "shrinkage",
    "decoupling",
)


class PlantedTruth(Study):
    """Every kind of crosscoder, every seed: precision, recall and F1 by norm and by latent scaling."""

    QUESTION: ClassVar[str] = "What do exclusive calls recover of activations whose latents are known?"
    MAKERS: ClassVar[Mapping[str, Callable[..., tuple[Contender, ...]]]] = {
        "": contenders,
        "_newer": newer_contenders,
        "_latest": latest_contenders,
    }
    """Ending of a step's name -> what makes the kinds that it trains."""

    seeds: tuple[int, ...] = Field(default=(0, 1, 2, 3, 4), min_length=1)
    planted: PlantedSettings = PlantedSettings()
    n_latents: int = Field(default=512, ge=1)
    k: int = Field(default=6, ge=1)
    n_steps: int = Field(default=1500, ge=1)
    batch_size: int = Field(default=1024, ge=1)
    n_documents: int = Field(default=6000, ge=40)
    n_scaling_documents: int = Field(default=2000, ge=40)
    only: tuple[str, ...] = ()
    """Names of the kinds to train; empty trains all."""

    def runs(self, experiment: Asked) -> Mapping[str, Changes]:
        """None: planted activations have no models and no documents to annotate."""
        return {}

    def extras(self, experiment: Asked) -> Mapping[str, ExtraStep]:
        """One step per seed and group of kinds (`newer_contenders`, `latest_contenders`)."""
        groups = self._contenders()
        steps = {}
        for seed in self.seeds:
            for kinds, suffix in zip(groups, self.MAKERS, strict=True):
                name = f"seed_{seed}{suffix}"
                if kinds:
                    steps[name] = self._step(name.replace("_", " "), self._inputs(seed, kinds))
        return steps

    def _step(self, label: str, inputs: PlantedInputs) -> ExtraStep:
        """The step, with what its trainings and the passes after them cost."""
        n_kinds, trained = len(inputs.contenders), self.n_steps * self.batch_size
        flops = encoder_flops(self.n_latents, self.planted.d_model, trained)
        n_train_steps = n_kinds * self.n_steps
        return ExtraStep("planted", label, inputs, n_train_steps=n_train_steps, encoder_flops=n_kinds * flops)

    def _inputs(self, seed: int, kinds: tuple[Contender, ...]) -> PlantedInputs:
        training = TrainingSettings(
            n_steps=self.n_steps,
            batch_size=self.batch_size,
            learning_rate=1e-3,
            warmup_steps=min(100, self.n_steps // 10),
            dead_after_tokens=100_000,
        )
        return PlantedInputs(
            planted=self.planted,
            contenders=kinds,
            training=training,
            n_documents=self.n_documents,
            n_scaling_documents=self.n_scaling_documents,
            seed=seed,
        )

    def _contenders(self) -> list[tuple[Contender, ...]]:
        """The kinds to train, in groups with one step each."""
        made = [make(n_latents=self.n_latents, k=self.k) for make in self.MAKERS.values()]
        known = [kind.name for kinds in made for kind in kinds]
        unknown = [name for name in self.only if name not in known]
        if unknown:
            raise ValueError(f"study.only={list(self.only)}: choose from {', '.join(known)}")
        asked = list(self.only or known)
        return [
            tuple(
                sorted(
                    (kind for kind in kinds if kind.name in asked), key=lambda kind: asked.index(kind.name)
                )
            )
            for kinds in made
        ]

    def analyse(self, runs: Mapping[str, RunProducts], extras: Mapping[str, Path]) -> Findings:
        """Means and ranges over seeds, one row per kind of crosscoder."""
        import pandas as pd

        rows = pd.concat([pd.read_csv(folder / "planted.csv") for folder in extras.values()])
        means = _means(rows)
        charts = (
            *(f1_chart(rows, band) for band in planted_bands(rows)),
            _table_chart("calls", "Precision, recall and F1 of the tuned-only call", _calls(rows)),
            _table_chart("quality", "Matching, quality, shrinkage and decoupling", _quality(means)),
        )
        return Findings(
            _answer(means, planted_bands(rows)),
            tiles=_tiles(rows),
            charts=charts,
            numbers={"n_seeds": len(self.seeds), "means": means},
        )


def _kinds(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rows of every kind of crosscoder, in the order of the table."""
    return {name: where(rows, contender=name) for name in dict.fromkeys(rows["contender"].tolist())}


def _mean(part: pd.DataFrame, column: str) -> float:
    """Mean over the seeds that have a value; NaN where none has."""
    return _over_seeds(part, column)[0]


def _over_seeds(part: pd.DataFrame, column: str) -> tuple[float, float, float]:
    """Mean, lowest and highest over the seeds that have a value; NaN where none has."""
    column_values = values(part, column)
    known = column_values[~np.isnan(column_values)]
    if not len(known):
        return float("nan"), float("nan"), float("nan")
    return float(known.mean()), float(known.min()), float(known.max())


def _means(rows: pd.DataFrame) -> dict[str, dict[str, float]]:
    columns = [name for name in rows.columns if name not in ("contender", "seed")]
    return {kind: {name: _mean(part, name) for name in columns} for kind, part in _kinds(rows).items()}


def planted_bands(rows: pd.DataFrame) -> tuple[str, ...]:
    """Bands of frequency that the world has tuned-only latents in."""
    planted = [band for band in GROUPS if not np.isnan(values(rows, f"scaling_recall_{band}")).all()]
    return tuple(planted or REQUIRED)


def _answer(means: Mapping[str, Mapping[str, float]], bands: Sequence[str]) -> str:
    name = "batch_topk" if "batch_topk" in means else next(iter(means))
    row, parts = means[name], []
    for group in bands:
        f1, required = row[f"scaling_f1_{group}"], REQUIRED.get(group)
        verdict = "" if required is None else f"{_against(f1, required)} the {required} asked for; "
        parts.append(
            f"{told(f1, '.3f')} for latents of {GROUPS[group]} ({verdict}"
            f"by norm alone {told(row[f'norm_f1_{group}'], '.3f')})"
        )
    return f"With {name} the tuned-only call by latent scaling has an F1 of {' and '.join(parts)}."


def _against(f1: float, required: float) -> str:
    if f1 != f1:
        return "cannot be held against"
    return "reaches" if f1 >= required else "misses"


def _tiles(rows: pd.DataFrame) -> tuple[dict[str, str], ...]:
    n_seeds, n_kinds = len(set(rows["seed"].tolist())), len(_kinds(rows))
    return (tile("Crosscoders", str(len(rows)), f"{n_kinds} kinds, {n_seeds} seeds"),)


def f1_chart(rows: pd.DataFrame, group: str) -> Chart:
    """F1 of every kind in one band of frequency, by norm and by latent scaling."""
    from crossdiff.report.figures.curves import Point
    from crossdiff.report.figures.curves import rows as dots

    series = {words: [] for words in METHODS.values()}
    for method, words in METHODS.items():
        for name, part in _kinds(rows).items():
            series[words].append(Point(name, *_over_seeds(part, f"{method}_f1_{group}")))
    return Chart(
        f"f1_{group}",
        f"F1 of the tuned-only call, planted latents of {GROUPS[group]}",
        "Mean over seeds; whiskers from the lowest to the highest seed.",
        dots(series, x_title="F1"),
    )


def _table_chart(name: str, title: str, table: Table) -> Chart:
    return Chart(name, title, "Means over seeds.", table=table)


def _calls(rows: pd.DataFrame) -> Table:
    """Precision over all calls (one that resembles nothing has no band), then recall and F1 per band."""
    from crossdiff.report import tables

    bands = planted_bands(rows)
    body: list[Sequence[Any]] = []
    for name, part in _kinds(rows).items():
        for method, words in METHODS.items():
            cells: list[Any] = [name, words, _mean(part, f"{method}_precision_all")]
            for band in bands:
                cells += [_mean(part, f"{method}_{figure}_{band}") for figure in ("recall", "f1")]
                cells.append(_over_seeds(part, f"{method}_f1_{band}")[1])
            cells += [_mean(part, f"{method}_called_{k}") for k in ("shrunken", "decoupled", "unmatched")]
            cells += [_mean(part, f"{method}_base_{figure}_all") for figure in ("precision", "recall")]
            body.append(cells)
    titles = ["Crosscoder", "Call", "precision"]
    titles += [f"{band} {figure}" for band in bands for figure in ("recall", "F1", "lowest F1")]
    titles += ["shrunken called", "decoupled called", "unmatched called", "base precision", "base recall"]
    return tables.plain(titles, body, numeric=range(2, len(titles)))


def _quality(means: Mapping[str, Mapping[str, float]]) -> Table:
    from crossdiff.report import tables

    body = [[name, *(row[column] for column in SHOWN)] for name, row in means.items()]
    titles = ["Crosscoder", *(column.replace("_", " ") for column in SHOWN)]
    return tables.plain(titles, body, numeric=range(1, len(titles)))
