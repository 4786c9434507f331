"""Study: does the tuned model's behaviour depend on exclusive latents more than on matched random ones?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from crossdiff.data.settings import MaskSettings
from crossdiff.io.tables import read_json
from crossdiff.models.pair import ModelSettings
from crossdiff.report.formatting import between, tile, told
from crossdiff.report.runs import RunProducts
from crossdiff.report.study_page import Chart, Findings
from crossdiff.settings import Settings
from crossdiff.stages.study import Asked, Changes, ExtraStep, From, Study

if TYPE_CHECKING:
    import pandas as pd

    from crossdiff.report.tables import Table

TOKENS_PER_DOCUMENT = 512
WHERE = ("all tokens", "first answer tokens")
"""Places whose tokens the figures are over."""


class CausalInputs(Settings):
    """What determines the check, besides the parents (tokens, harvests, train, scale of one pair).

    tuned         the tuned model, whose later blocks read the patched states
    n_documents   documents from all over the corpus
    n_draws       random sets, matched on density and energy
    first         answer tokens of the second place
    """

    layer: int = Field(ge=0)
    tuned: ModelSettings
    mask: MaskSettings = MaskSettings()
    n_documents: int = Field(default=200, ge=2)
    n_draws: int = Field(default=20, ge=1)
    first: int = Field(default=10, ge=1)
    resamples: int = Field(default=2000, ge=100)
    states_at_a_time: int = Field(default=8, ge=1)
    seed: int = 0


class Causal(Study):
    """Patching (method.md section 7) on every pair of the experiment."""

    READS_CROSSCODERS: ClassVar[bool] = True
    QUESTION: ClassVar[str] = (
        "Do exclusive latents close more of the distance to the tuned model than others?"
    )

    n_documents: int = Field(default=200, ge=2)
    n_draws: int = Field(default=20, ge=1)
    first: int = Field(default=10, ge=1)

    def runs(self, experiment: Asked) -> Mapping[str, Changes]:
        """None: the check needs no reports."""
        return {}

    def groundwork(self, experiment: Asked) -> Mapping[str, Changes]:
        """The experiment's harvests, crosscoders and latent tables."""
        return {"pairs": {}}

    def extras(self, experiment: Asked) -> Mapping[str, ExtraStep]:
        """One check per pair."""
        steps = {}
        for pair in experiment.pairs:
            inputs = CausalInputs(
                layer=experiment.layer,
                tuned=pair.tuned,
                mask=experiment.mask,
                n_documents=self.n_documents,
                n_draws=self.n_draws,
                first=self.first,
                seed=experiment.seed,
            )
            parents = {
                "tokens": From("pairs", "tokens"),
                "harvest_base": From("pairs", "harvest", pair.base.name),
                "harvest_tuned": From("pairs", "harvest", pair.tuned.name),
                "train": From("pairs", "train", pair.name),
                "scale": From("pairs", "scale", pair.name),
                "organism": From("pairs", "organism", optional=True),
            }
            n_tokens = (self.n_draws + 7) * self.n_documents * TOKENS_PER_DOCUMENT
            steps[pair.name] = ExtraStep("causal", pair.name, inputs, parents, (pair.tuned,), n_tokens)
        return steps

    def analyse(self, runs: Mapping[str, RunProducts], extras: Mapping[str, Path]) -> Findings:
        """Share of the KL gap closed, per pair and place, against the matched random sets."""
        records = {pair: read_json(folder / "causal.json") for pair, folder in extras.items()}
        charts = [_chart(pair, extras[pair]) for pair, record in records.items() if record["places"]]
        return Findings(
            " ".join(_sentence(pair, record) for pair, record in records.items()),
            notes=tuple(_note(pair, record) for pair, record in records.items() if record["places"]),
            tiles=tuple(t for pair, record in records.items() for t in _tiles(pair, record)),
            charts=tuple(charts),
            numbers=records,
        )


def _sentence(pair: str, record: Mapping[str, Any]) -> str:
    if not record["places"]:
        return f"{pair}: {record['sentence']}"
    parts = []
    for where, figures in record["places"].items():
        if figures["beaten"] is None:
            parts.append(f"no {where} in these documents")
            continue
        if figures["closed_exclusive"] is None:
            parts.append(f"no gap at {where}, where both models predict alike")
            continue
        parts.append(
            f"{told(figures['closed_exclusive'], '.0%')} of the gap at {where} (random sets "
            f"{told(figures['closed_random_mean'], '.0%')} on average, {figures['beaten']} of "
            f"{figures['n_draws']} beaten; shrunk to their patch energy "
            f"{told(figures['closed_equal_energy'], '.0%')}; as many other latents of largest patch energy "
            f"{told(figures['closed_top_energy'], '.0%')}; all latents "
            f"{told(figures['closed_all'], '.0%')})"
        )
    return f"{pair}: its {record['n_exclusive']} exclusive latents close {'; '.join(parts)}."


def _note(pair: str, record: Mapping[str, Any]) -> str:
    density, energy = record["density_ratio"], record["energy_ratio"]
    return (
        f"{pair}: {record['draws_within_tolerance']} of {record['n_draws']} random sets match the exclusive "
        f"one within {record['tolerance']:.0%} in summed density ({between(*density)} of it) and energy "
        f"({between(*energy)}); {told(record['latents_alike'], '.0%')} of their "
        f"latents match one by one. {_energies(record)}"
    )


def _energies(record: Mapping[str, Any]) -> str:
    """Sentence with the squared length of the patches per place, which matching does not fix."""
    parts = [
        f"at {where} {told(figures['energy_exclusive'], '.1%')} for the exclusive latents, "
        f"{told(figures['energy_random_mean'], '.1%')} for random sets on average and "
        f"{told(figures['energy_top_energy'], '.1%')} for the others of largest patch energy"
        for where, figures in record["places"].items()
        if figures["beaten"] is not None
    ]
    return f"Patch energy as a share of |x_tuned - x_base|^2: {'; '.join(parts)}."


def _tiles(pair: str, record: Mapping[str, Any]) -> list[dict[str, str]]:
    return [
        tile(
            f"{pair}, {where}",
            told(figures["margin"], "+.1%"),
            between(figures["margin_low"], figures["margin_high"], "+.1%"),
        )
        for where, figures in record["places"].items()
        if figures["beaten"] is not None
    ]


def _chart(pair: str, folder: Path) -> Chart:
    import pandas as pd

    from crossdiff.report.figures.curves import Point, rows

    table = pd.read_csv(folder / "causal.csv")
    shown = table[~table["condition"].isin(["base", "tuned"])]
    series = {
        where: [Point(r.condition, r.closed, r.closed_low, r.closed_high) for r in part.itertuples()]  # type: ignore[arg-type]
        for where in WHERE
        if len(part := shown[shown["where"] == where])
    }
    return Chart(
        f"causal_{pair}",
        f"{pair}: share of the KL gap closed",
        "1 - KL(tuned || patched) / KL(tuned || base state), 95 % intervals over documents; random: matched.",
        rows(series, x_title="share closed"),
        _table(table),
    )


def _table(table: pd.DataFrame) -> Table:
    from crossdiff.report import tables

    titles = [str(name).replace("_", " ") for name in table.columns]
    return tables.plain(titles, table.to_numpy().tolist(), numeric=range(2, len(titles)))
