"""Null: calls and labels of a dictionary with random decoder directions that do not train."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from crossdiff.io.tables import alive
from crossdiff.report import tables
from crossdiff.report.delta_rows import delta_rows
from crossdiff.report.formatting import tile, told
from crossdiff.report.runs import ROLES, RunProducts
from crossdiff.report.study_page import Chart, Findings
from crossdiff.stages.study import Asked, Changes, Study
from crossdiff.statistics.intervals import wilson_rate
from crossdiff.studies.corpus import labels_of
from crossdiff.studies.seed_null import interval_calls
from crossdiff.studies.shared import counts_chart
from crossdiff.taxonomy.scheme import RESERVED

if TYPE_CHECKING:
    import pandas as pd

SCORES = ("detection", "fuzz")
CATEGORIES = (
    "Labels of the tuned-exclusive latents: treatment is the frozen dictionary, reference the trained one. "
    "Models and data are the same, so what differs here beyond chance is owed to the dictionary. The "
    "interval of the share of intervals takes categories as independent, though they share their latents."
)


class FrozenDecoder(Study):
    """The first pair twice: as asked, and with independent random directions that stay fixed.

    Only the encoder and the biases of the second crosscoder train. Random dictionaries came close to trained
    ones in automated interpretation (Korznikov et al. 2026, arXiv 2602.14111: 0.87 against 0.90).
    """

    QUESTION: ClassVar[str] = "Do calls and labels tell trained latents from random, fixed directions?"

    def runs(self, experiment: Asked) -> Mapping[str, Changes]:
        """`trained`, the experiment's crosscoder of the pair, and `frozen`."""
        pair = {"comparison": None, "model_pair": experiment.pairs[0]}
        dictionary = experiment.dictionary.model_copy(update={"initial_decoders": "independent"})
        training = experiment.training.model_copy(update={"frozen_decoder": True})
        return {"trained": pair, "frozen": {**pair, "dictionary": dictionary, "training": training}}

    def analyse(self, runs: Mapping[str, RunProducts], extras: Mapping[str, Path]) -> Findings:
        """Calls per 1,000 alive latents, share of labels that name a category, scores, category intervals."""
        numbers = {name: figures(run) for name, run in runs.items()}
        deltas = against_trained(runs)
        changes = category_calls(deltas)
        charts = (
            counts_chart(runs, x_title="decoder"),
            _figures_chart(numbers),
            Chart(
                "categories", "Categories", CATEGORIES, table=tables.deltas(delta_rows(deltas), planted=None)
            ),
        )
        note = (
            "The two models do differ and the encoder does train, so a call of a frozen latent is not false "
            "as such; but its direction was drawn before training and describes nothing that was learned."
        )
        return Findings(
            f"{answer(numbers)} {_told_changes(changes)}",
            notes=(note,),
            tiles=(*_tiles(numbers), _changes_tile(changes)),
            charts=charts,
            numbers={**numbers, "categories": changes},
        )


def against_trained(runs: Mapping[str, RunProducts]) -> pd.DataFrame:
    """The delta table of the frozen latents' labels against the trained ones'."""
    from crossdiff.statistics.deltas import category_deltas

    return category_deltas(labels_of(runs["trained"]), labels_of(runs["frozen"]))


def category_calls(deltas: pd.DataFrame) -> dict[str, Any]:
    """Category intervals that exclude no change, and categories called changed, as shares of all."""
    counts = interval_calls([deltas])
    of = counts["n_intervals"]
    shares = {name: wilson_rate(counts[f"n_{name}"], of) for name in ("clear", "significant")}
    return {**counts, **shares}


def _told_changes(found: Mapping[str, Any]) -> str:
    if not found["n_intervals"]:
        return "No category has an interval of its share, frozen against trained."
    return (
        f"Models and data are the same; of {found['n_intervals']} categories the intervals of "
        f"{found['n_clear']} exclude no change between the two: {_told(found['clear'], '.0%')}; "
        f"{found['n_significant']} pass correction: {_told(found['significant'], '.0%')}."
    )


def _changes_tile(found: Mapping[str, Any]) -> dict[str, str]:
    said = "category intervals, frozen against trained; 95 % (Wilson)"
    return tile("Intervals that exclude no change", _told(found["clear"], ".0%"), said)


def figures(run: RunProducts) -> dict[str, Any]:
    """Figures of a run's pair; shares are None without latents, scores where none was taken."""
    pair = run.pairs[0]
    recorded, labels = run.figures(pair), run.labels(pair).values()
    n_alive, n_called = len(alive(run.latents(pair))), int(recorded["n_exclusive"])
    n_named = sum(category not in RESERVED for category in labels)
    kept = {
        name: recorded[name] for name in ("fve_base", "fve_tuned", "l0", "dead_share", "n_exclusive_base")
    }
    return {
        **kept,
        "n_alive": n_alive,
        "n_exclusive": n_called,
        "per_1000": wilson_rate(n_called, n_alive, per=1000),
        "n_labelled": len(labels),
        "n_named": n_named,
        "named": wilson_rate(n_named, len(labels)),
        **{score: _mean_score(run, pair, score) for score in SCORES},
    }


def _mean_score(run: RunProducts, pair: str, score: str) -> float | None:
    """Mean of a score over the exclusive latents that have it; None without any."""
    rows = (row for row in run.annotations(pair) if row["role"] == ROLES["tuned"])
    taken = [value for row in rows if (value := (row.get("scores") or {}).get(score)) is not None]
    return sum(taken) / len(taken) if taken else None


def answer(numbers: Mapping[str, Mapping[str, Any]]) -> str:
    """The figures with intervals, and whether the intervals overlap."""
    trained, frozen = numbers["trained"], numbers["frozen"]
    calls = (
        f"Of 1,000 alive latents, {_told(frozen['per_1000'])} are called exclusive with fixed random "
        f"directions and {_told(trained['per_1000'])} with trained ones"
    )
    if frozen["named"] is None or trained["named"] is None:
        return (
            f"{calls}; one of the two has no labelled exclusive latent, so their labels cannot be compared."
        )
    overlap = (
        frozen["named"]["high"] >= trained["named"]["low"]
        and trained["named"]["high"] >= frozen["named"]["low"]
    )
    verdict = (
        "the intervals overlap, so that a named category alone is no sign of a learned latent"
        if overlap
        else "the intervals are apart"
    )
    return (
        f"{calls}; a category other than {' or '.join(sorted(RESERVED))} is the label of "
        f"{_told(frozen['named'], '.0%')} and {_told(trained['named'], '.0%')}: {verdict}. {_scores(numbers)}"
    )


def _scores(numbers: Mapping[str, Mapping[str, Any]]) -> str:
    pairs = {score: [numbers[name][score] for name in ("frozen", "trained")] for score in SCORES}
    known = {score: values for score, values in pairs.items() if None not in values}
    if not known:
        return "Detection and fuzz scores were not taken: this annotator has none."
    return "Mean scores: " + ", ".join(f"{k} {v[0]:.2f} and {v[1]:.2f}" for k, v in known.items()) + "."


def _told(share: Mapping[str, float] | None, form: str = ".1f") -> str:
    if share is None:
        return "none"
    return f"{told(share['value'], form)} ({told(share['low'], form)} to {told(share['high'], form)})"


def _tiles(numbers: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, str], ...]:
    return tuple(
        tile(f"Exclusive of 1,000 alive, {name}", _told(row["per_1000"]), "95 % interval (Wilson)")
        for name, row in numbers.items()
    )


def _figures_chart(numbers: Mapping[str, Mapping[str, Any]]) -> Chart:
    plain = ("n_alive", "n_exclusive", "n_exclusive_base", "fve_base", "fve_tuned", "l0", *SCORES)
    body = [
        [name, *(_cell(row[key]) for key in plain), _told(row["per_1000"]), _told(row["named"], ".0%")]
        for name, row in numbers.items()
    ]
    titles = [
        "Decoder",
        *(key.replace("_", " ") for key in plain),
        "Exclusive of 1,000",
        "Labels that name a category",
    ]
    table = tables.plain(titles, body, numeric=range(1, len(titles)))
    caption = "A dash: not taken. Shares with Wilson's 95 % interval; scores of exclusive latents."
    return Chart("figures", "Trained and frozen side by side", caption, table=table)


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.2f}"
