"""Null: two tunings of one kind (same base, same aim, other draws) through the ordinary comparison."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from crossdiff.io.tables import alive
from crossdiff.models.pair import ORGANISM, Comparison, ModelPair, fingerprint
from crossdiff.report import tables
from crossdiff.report.formatting import tile, told
from crossdiff.report.runs import RunProducts
from crossdiff.report.study_page import Chart, Findings
from crossdiff.stages.study import Asked, Changes, NeedsModels, Study
from crossdiff.statistics.intervals import wilson_rate
from crossdiff.studies.changes import CategoryCounts, changes_chart
from crossdiff.studies.seed_null import interval_calls, spread, twins
from crossdiff.studies.shared import counts_chart

N_CATEGORIES, N_LATENTS = 30, 1000
"""Calls are told per this many categories and alive latents."""


class TwoTunings(Study):
    """The first pair against one whose tuned model was made in the same way with another seed.

    On the toy the second model is a further tuning of pt (organism:it_2, stage `tune_again`), and
    `n_comparisons` takes tunings 1 and 2, 3 and 4, ... Of other models it is named: `again` (folder or hub
    id), `again_adapter` (a PEFT adapter on the first tuned model's path) or `again_revision`; one named model
    gives one comparison, whatever `n_comparisons` is, and the page says so.
    """

    QUESTION: ClassVar[str] = "Which category changes appear between two tunings of one and the same kind?"

    n_comparisons: int = Field(default=1, ge=1)
    again: str | None = None
    again_adapter: str | None = None
    again_revision: str | None = None

    def runs(self, experiment: Asked) -> Mapping[str, Changes]:
        """The ordinary comparison of both pairs, with as many crosscoders per pair as the experiment has.

        Of the crosscoders in `comparison.without` those of these pairs are left out.
        """
        given = experiment.comparison if isinstance(experiment.comparison, Comparison) else None
        return {
            f"{reference.tuned.name}_{treatment.tuned.name}": {
                "model_pair": None,
                "comparison": _compared(reference, treatment, given, first_seed=experiment.seed),
            }
            for reference, treatment in self._pairs(experiment.pairs[0])
        }

    @property
    def _named(self) -> dict[str, Any]:
        """What the user names of the second model."""
        named = {"path": self.again, "adapter": self.again_adapter, "revision": self.again_revision}
        return {field: value for field, value in named.items() if value is not None}

    def _pairs(self, first: ModelPair) -> list[tuple[ModelPair, ModelPair]]:
        changes = self._named
        if self.again is not None:  # a whole model: nothing of the first tuned model's goes into it
            changes = {"adapter": None, "revision": None, **changes}
        if changes:
            again = {"name": f"{first.tuned.name}_2", **changes}
            return [(_numbered(first, 1, {}), _different(first, _numbered(first, 2, again)))]
        if first.tuned.path != f"{ORGANISM}it":
            raise NeedsModels(
                f"study two_tunings needs a second model that was tuned like {first.tuned.path}; name it: "
                "study.again=<folder or hub id>, study.again_adapter=<PEFT adapter> or "
                "study.again_revision=<revision> (of the toy it tunes organism:it again)"
            )
        toys = [_toy(first, number) for number in range(1, 2 * self.n_comparisons + 1)]
        return list(zip(toys[::2], toys[1::2], strict=True))

    def analyse(self, runs: Mapping[str, RunProducts], extras: Mapping[str, Path]) -> Findings:
        """Calls between tunings of one kind, of categories and of latents, with binomial intervals."""
        counts = CategoryCounts.of(list(runs.values()))
        numbers = {
            **spread(counts.log_changes()),
            **interval_calls(run.deltas() for run in runs.values()),
            **latent_calls(runs),
            "runs": {name: twins(run) for name, run in runs.items()},
        }
        numbers["rates"] = rates(numbers)
        note = (
            "The weights do differ, so a latent of one tuning alone is no mistake as such. What is false is "
            "to read such a call as a difference of kind. Categories of one comparison share their latents: "
            "the binomial intervals take them as independent, and with one comparison they are too narrow."
        )
        notes = [note]
        if self._named and self.n_comparisons > 1:
            notes.append(
                f"study.n_comparisons={self.n_comparisons} is of the toy, which can be tuned again; one "
                "second model is named, so one comparison is made."
            )
        charts = (_calls_chart(numbers), counts_chart(runs, x_title="tunings"), changes_chart(counts, runs))
        tiles = _tiles(numbers)
        return Findings(answer(numbers), notes=tuple(notes), tiles=tiles, charts=charts, numbers=numbers)


def _compared(
    reference: ModelPair, treatment: ModelPair, given: Comparison | None, *, first_seed: int
) -> Comparison:
    """The comparison of two tunings with the crosscoders per pair that the experiment asks for."""
    if given is None:
        return Comparison(reference=reference, treatment=treatment)
    whole = Comparison(reference=reference, treatment=treatment, n_seeds=given.n_seeds)
    here = {one.name for members in whole.members(first_seed).values() for one in members}
    return whole.model_copy(update={"without": tuple(name for name in given.without if name in here)})


def _toy(pair: ModelPair, number: int) -> ModelPair:
    """The toy's pair with that tuning of pt."""
    again = {"path": f"{ORGANISM}it_{number}", "name": f"it_{number}"}
    return _numbered(pair, number, {} if number == 1 else again)


def _numbered(pair: ModelPair, number: int, changes: Mapping[str, Any]) -> ModelPair:
    """The pair with a changed tuned model, through the pair's own template."""
    whole: dict[str, Any] = {"template": pair.template_model}
    if number > 1:
        tuned = pair.tuned.model_copy(update=dict(changes))
        whole |= {"name": f"{pair.name}_tuning{number}", "tuned": tuned}
    return pair.model_copy(update=whole)


def _different(first: ModelPair, second: ModelPair) -> ModelPair:
    """The second pair; refused where its tuned model is that of the first."""
    if fingerprint(second.tuned) == fingerprint(first.tuned):
        raise ValueError(
            f"the second tuning ({second.tuned.path}) is the tuned model of {first.name} itself, and equal "
            "weights show no change: name another, made with another seed"
        )
    return second


def latent_calls(runs: Mapping[str, RunProducts]) -> dict[str, int]:
    """Exclusive latents of the tuned models that are new (no latent under the other tuning has their
    direction or their code), of all alive ones."""
    n_new = n_exclusive = n_alive = 0
    for run in runs.values():
        for pair, found in twins(run).items():
            n_new += found["new"]
            n_exclusive += found["n_exclusive"]
            n_alive += len(alive(run.latents(pair)))
    return {"n_new": n_new, "n_exclusive": n_exclusive, "n_alive": n_alive}


def rates(numbers: Mapping[str, int]) -> dict[str, dict[str, float] | None]:
    """Calls per 30 categories and per 1,000 alive latents, with Wilson's 95 % interval; None of nothing."""
    counted = {
        "clear": (numbers["n_clear"], numbers["n_intervals"], N_CATEGORIES),
        "significant": (numbers["n_significant"], numbers["n_intervals"], N_CATEGORIES),
        "new": (numbers["n_new"], numbers["n_alive"], N_LATENTS),
    }
    return {name: wilson_rate(count, of, per=per) for name, (count, of, per) in counted.items()}


def answer(numbers: Mapping[str, Any]) -> str:
    """One sentence from the counts."""
    if not numbers["n_intervals"]:
        return "No comparison has a labelled exclusive latent in a category, so the null has nothing to show."
    found = numbers["rates"]
    return (
        f"Between two tunings of one kind, {numbers['n_significant']} of {numbers['n_intervals']} categories "
        f"are called changed after correction ({_told(found['significant'])} of 30), the intervals of "
        f"{numbers['n_clear']} exclude no change ({_told(found['clear'])} of 30), and {numbers['n_new']} of "
        f"{numbers['n_alive']:,} alive latents are called exclusive and are like no latent under the other "
        f"tuning ({_told(found['new'])} of 1,000)."
    )


def _told(rate: Mapping[str, float] | None) -> str:
    if rate is None:
        return "-"
    return f"{told(rate['value'], '.1f')}, {told(rate['low'], '.1f')} to {told(rate['high'], '.1f')}"


def _tiles(numbers: Mapping[str, Any]) -> tuple[dict[str, str], ...]:
    found = numbers["rates"]
    return (
        tile("Changes called, of 30 categories", _told(found["significant"]), "corrected; 95 % (Wilson)"),
        tile("New latents, of 1,000 alive", _told(found["new"]), "95 % interval (Wilson)"),
    )


def _calls_chart(numbers: Mapping[str, Any]) -> Chart:
    found = numbers["rates"]
    body = [
        ["categories called changed after correction", numbers["n_significant"], numbers["n_intervals"],
         _told(found["significant"]), "30 categories"],
        ["category intervals that exclude no change", numbers["n_clear"], numbers["n_intervals"],
         _told(found["clear"]), "30 categories"],
        ["exclusive latents like none under the other tuning", numbers["n_new"], numbers["n_alive"],
         _told(found["new"]), "1,000 alive latents"],
    ]  # fmt: skip
    table = tables.plain(["Call", "Calls", "Of", "Rate, 95 % interval", "Per"], body, numeric=[1, 2])
    caption = "Calls where both models were tuned in the same way. Wilson's intervals; see the note."
    return Chart("calls", "False calls", caption, table=table)
