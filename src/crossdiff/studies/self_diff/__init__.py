"""Null: how many latents of a model against itself are called exclusive?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from crossdiff.io.tables import read_json
from crossdiff.report.formatting import between, tile, told
from crossdiff.report.runs import RunProducts
from crossdiff.report.study_page import Chart, Findings
from crossdiff.stages.study import Asked, Changes, ExtraStep, From, Study, train_inputs
from crossdiff.studies.self_diff.step import SelfDiffInputs
from crossdiff.studies.shared import count_interval

if TYPE_CHECKING:
    from crossdiff.report.tables import Table

ALLOWED_PER_1000 = 1.0
COLUMNS = (
    "noise",
    "seed",
    "n_alive",
    "n_exclusive_tuned",
    "n_exclusive_base",
    "n_undecided",
    "per_1000_alive",
    "fve_base",
)


class SelfDiff(Study):
    """The first pair's base model against itself, with independent noise and starts (method.md section 6)."""

    QUESTION: ClassVar[str] = "How many latents of a model against itself are called exclusive?"

    seeds: tuple[int, ...] = Field(default=(0, 1, 2, 3, 4), min_length=1)
    noise: float | tuple[float, ...] = 0.01
    """Deviation of each copy's noise over that of the component; several values are a sweep.

    0.01 is 1e-4 of the variance, less than a crosscoder leaves unexplained, so an easy null. Noise as large
    as the residual is harder for the exclusive call.
    """

    def runs(self, experiment: Asked) -> Mapping[str, Changes]:
        """None: the null's crosscoders are extra steps."""
        return {}

    def groundwork(self, experiment: Asked) -> Mapping[str, Changes]:
        """The experiment's tokens and the base model's harvest."""
        return {"pair": {}}

    def extras(self, experiment: Asked) -> Mapping[str, ExtraStep]:
        """A crosscoder per seed and noise, on the same harvest."""
        model = experiment.pairs[0].base.name
        parents = {"tokens": From("pair", "tokens"), "harvest_base": From("pair", "harvest", model)}
        steps = {}
        for noise in self._noises():
            suffix = f" noise {noise:g}" if isinstance(self.noise, tuple) else ""
            for seed in self.seeds:
                train = train_inputs(experiment, seed=seed)
                inputs = SelfDiffInputs(train=train, selection=experiment.selection, noise=noise)
                label = f"{model} seed {seed}{suffix}"
                name = f"seed_{seed}{suffix.replace(' ', '_')}"
                steps[name] = ExtraStep("self_diff", label, inputs, parents)
        return steps

    def _noises(self) -> tuple[float, ...]:
        return self.noise if isinstance(self.noise, tuple) else (self.noise,)

    def analyse(self, runs: Mapping[str, RunProducts], extras: Mapping[str, Path]) -> Findings:
        """False exclusive calls per 1,000 alive latents, pooled over seeds, with their interval."""
        records = [read_json(folder / "self_diff.json") for folder in extras.values()]
        for record, noise in zip(records, (n for n in self._noises() for _ in self.seeds), strict=True):
            record["noise"] = noise
        rates = {noise: _rate([r for r in records if r["noise"] == noise]) for noise in self._noises()}
        worst = max(rates.values(), key=lambda rate: rate["per_1000"])
        return Findings(
            " ".join(_answer(rate, len(self.seeds), noise) for noise, rate in rates.items()),
            notes=tuple(_note(rate, noise) for noise, rate in rates.items()),
            tiles=(_tile(worst),),
            charts=(_chart(records),),
            numbers={**worst, "seeds": records, "by_noise": {f"{n:g}": rate for n, rate in rates.items()}},
        )


def _rate(records: list[dict[str, Any]]) -> dict[str, Any]:
    """False exclusive calls per 1,000 alive latents over the seeds of one noise."""
    count = sum(row["n_exclusive_tuned"] + row["n_exclusive_base"] for row in records)
    alive = sum(row["n_alive"] for row in records)
    low, high = (1000 * bound / alive if alive else float("nan") for bound in count_interval(count))
    rate = 1000 * count / alive if alive else float("nan")
    return {"n_exclusive": count, "n_alive": alive, "per_1000": rate, "low": low, "high": high}


def _answer(rate: Mapping[str, Any], n_seeds: int, noise: float) -> str:
    if not rate["n_alive"]:
        return "No latent was ever active, so the null says nothing: train longer, or on more tokens."
    verdict = "within" if rate["per_1000"] <= ALLOWED_PER_1000 else "above"
    return (
        f"Over {n_seeds} seeds at a noise of {noise:g} {rate['n_exclusive']} of {rate['n_alive']:,} alive "
        f"latents of a model against itself are called exclusive: {rate['per_1000']:.2f} per 1,000, "
        f"{verdict} the {ALLOWED_PER_1000:g} per 1,000 that is allowed."
    )


def _note(rate: Mapping[str, Any], noise: float) -> str:
    interval = between(rate["low"], rate["high"])
    return f"Noise {noise:g}: 95 % interval of the rate per 1,000: {interval} (exact, Poisson)."


def _tile(rate: Mapping[str, Any]) -> dict[str, str]:
    share = f"{rate['n_exclusive']} of {rate['n_alive']:,}"
    return tile("False exclusive calls", f"{told(rate['per_1000'])} per 1,000 alive", share)


def _chart(seeds: list[dict[str, Any]]) -> Chart:
    return Chart("self_diff", "Calls per seed", "Counts of latents; FVE of one copy.", table=_table(seeds))


def _table(seeds: list[dict[str, Any]]) -> Table:
    from crossdiff.report import tables

    body = [[row[name] for name in COLUMNS] for row in seeds]
    return tables.plain([name.replace("_", " ") for name in COLUMNS], body, numeric=range(len(COLUMNS)))
