"""Null: how many latents of a model diffed against itself are called exclusive?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from crossdiff.io.tables import read_json
from crossdiff.report.findings import Chart, Findings
from crossdiff.report.formatting import between, told
from crossdiff.report.products import RunProducts
from crossdiff.stages.study import Asked, Changes, ExtraStep, From, Study, train_inputs
from crossdiff.studies.counts import count_interval, tile
from crossdiff.studies.self_diff.step import SelfDiffInputs

if TYPE_CHECKING:
    from crossdiff.report.tables import Table

ALLOWED_PER_1000 = 1.0
COLUMNS = (
    "seed",
    "n_alive",
    "n_exclusive_tuned",
    "n_exclusive_base",
    "n_undecided",
    "per_1000_alive",
    "fve_base",
)


class SelfDiff(Study):
    """The base model of the first pair against itself, with independent noise and starts (method.md 6)."""

    QUESTION: ClassVar[str] = "How many latents of a model against itself are called exclusive?"

    seeds: tuple[int, ...] = Field(default=(0, 1, 2, 3, 4), min_length=1)
    noise: float = Field(default=0.01, gt=0)
    """Deviation of each copy's noise in units of every component's own deviation."""

    def runs(self, experiment: Asked) -> Mapping[str, Changes]:
        """No report: the crosscoders of the null are the study's own steps."""
        return {}

    def groundwork(self, experiment: Asked) -> Mapping[str, Changes]:
        """Tokens and the base model's harvest come from the experiment as it stands."""
        return {"pair": {}}

    def extras(self, experiment: Asked) -> Mapping[str, ExtraStep]:
        """A crosscoder per seed, on one and the same harvest."""
        model = experiment.pairs[0].base.name
        parents = {"tokens": From("pair", "tokens"), "harvest_base": From("pair", "harvest", model)}
        return {
            f"seed_{seed}": ExtraStep(
                "self_diff", f"{model} seed {seed}", self._inputs(experiment, seed), parents
            )
            for seed in self.seeds
        }

    def _inputs(self, experiment: Asked, seed: int) -> SelfDiffInputs:
        train = train_inputs(experiment, seed=seed)
        return SelfDiffInputs(train=train, selection=experiment.selection, noise=self.noise)

    def analyse(self, runs: Mapping[str, RunProducts], extras: Mapping[str, Path]) -> Findings:
        """False exclusive calls per 1,000 alive latents, pooled over seeds, with their interval."""
        found = [read_json(folder / "self_diff.json") for folder in extras.values()]
        count = sum(row["n_exclusive_tuned"] + row["n_exclusive_base"] for row in found)
        alive = sum(row["n_alive"] for row in found)
        low, high = (1000 * bound / alive if alive else float("nan") for bound in count_interval(count))
        rate = 1000 * count / alive if alive else float("nan")
        numbers = {"n_exclusive": count, "n_alive": alive, "per_1000": rate, "low": low, "high": high}
        return Findings(
            _answer(count, alive, rate, len(found)),
            notes=(f"95 % interval of the rate per 1,000: {between(low, high)} (exact, Poisson).",),
            tiles=(tile("False exclusive calls", f"{told(rate)} per 1,000 alive", f"{count} of {alive:,}"),),
            charts=(_chart(found),),
            numbers={**numbers, "seeds": found},
        )


def _answer(count: int, alive: int, rate: float, n_seeds: int) -> str:
    if not alive:
        return "No latent was ever active, so the null says nothing: train longer, or on more tokens."
    verdict = "within" if rate <= ALLOWED_PER_1000 else "above"
    return (
        f"Over {n_seeds} seeds {count} of {alive:,} alive latents of a model against itself are called "
        f"exclusive: {rate:.2f} per 1,000, {verdict} the {ALLOWED_PER_1000:g} per 1,000 that is allowed."
    )


def _chart(found: list[dict[str, Any]]) -> Chart:
    return Chart("self_diff", "Calls per seed", "Counts of latents; FVE of one copy.", table=_table(found))


def _table(found: list[dict[str, Any]]) -> Table:
    from crossdiff.report import tables

    body = [[row[name] for name in COLUMNS] for row in found]
    return tables.plain([name.replace("_", " ") for name in COLUMNS], body, numeric=range(len(COLUMNS)))
