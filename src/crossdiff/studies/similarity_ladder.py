"""Study: from which distance between two models on does a direct diff see something?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator

from crossdiff.models.pair import ModelPair
from crossdiff.report import tables
from crossdiff.report.runs import RunProducts
from crossdiff.report.study_page import Chart, Findings
from crossdiff.stages.study import Asked, AskedComparison, Changes, Study
from crossdiff.studies.direct import fewer_test
from crossdiff.studies.shared import count_interval, direct_pair, spread, three_models

CLEAR = 0.05
"""Level of the exact test that a rung has more exclusive latents than distance 0."""


class SimilarityLadder(Study):
    """The reference's tuned model against models at `distances` on the line to the treatment's.

    Distance 0 is the model against itself, whose exclusive latents are noise.
    """

    QUESTION: ClassVar[str] = "From which distance between two models on does a direct diff see something?"

    distances: tuple[float, ...] = Field(min_length=2)

    @field_validator("distances")
    @classmethod
    def _rising_from_zero(cls, distances: tuple[float, ...]) -> tuple[float, ...]:
        if list(distances) != sorted(set(distances)) or distances[0] != 0:
            raise ValueError(
                f"study.distances={list(distances)}: give rising numbers that begin with 0 (a model against "
                "itself), for example [0,0.25,0.5,1,2]"
            )
        return distances

    def runs(self, experiment: Asked) -> Mapping[str, Changes]:
        """One direct pair per distance."""
        comparison = three_models(experiment, "similarity_ladder")
        return {
            f"distance_{distance:g}": {"comparison": None, "model_pair": rung(comparison, distance)}
            for distance in self.distances
        }

    def analyse(self, runs: Mapping[str, RunProducts], extras: Mapping[str, Path]) -> Findings:
        """Exclusive counts and norms over the distance."""
        rungs = []
        nothing = next(iter(runs.values()))
        n_nothing = exclusive(nothing)
        for distance, run in zip(self.distances, runs.values(), strict=True):
            count = exclusive(run)
            p = fewer_test(n_nothing, count)["p"]
            low, high = count_interval(count)
            norms = spread(run, run.pairs[0])
            rungs.append(
                {"distance": distance, "n_exclusive": count, "low": low, "high": high, "p": p, **norms}
            )
        return Findings(
            _answer(rungs),
            notes=(
                "Exclusive latents of both models count. Distance 0 is one model against itself; a rung "
                "sees something when an exact test finds more than there (one-sided p < 0.05).",
            ),
            charts=(_chart(rungs),),
            numbers={"rungs": rungs},
        )


def exclusive(run: RunProducts) -> int:
    """Exclusive latents of both models of a run's only pair."""
    figures = run.figures(run.pairs[0])
    return figures["n_exclusive"] + figures["n_exclusive_base"]


def rung(comparison: AskedComparison, distance: float) -> ModelPair:
    """The reference's tuned model against the model at `distance` on the line to the treatment's."""
    direct = direct_pair(comparison)
    if distance == 1:
        return direct
    start, end = direct.base, direct.tuned
    name = f"{start.name}_to_{end.name}_{distance:g}"
    moved = start.model_copy(update={"name": name, "towards": end.path, "distance": distance})
    tuned = start if distance == 0 else moved
    return direct.model_copy(update={"name": f"{start.name}_{distance:g}", "tuned": tuned})


def _chart(rungs: list[dict[str, Any]]) -> Chart:
    from crossdiff.report.figures.curves import Point, curves

    points = [Point(step["distance"], step["n_exclusive"], step["low"], step["high"]) for step in rungs]
    titles = ["Distance", "Exclusive", "Low", "High", "p against 0", "Share 0.3 to 0.6", "Signature"]
    body = [
        [
            step["distance"], step["n_exclusive"], step["low"], step["high"],
            step["p"] if step["distance"] else None, step["share_0.3_0.6"], step["verdict"],
        ]
        for step in rungs
    ]  # fmt: skip
    return Chart(
        "ladder",
        "Exclusive latents over the distance of the models",
        "0: the model against itself, 1: the two tuned models, 2: as far again; bars are 95 % intervals of a "
        "Poisson count.",
        curves({"exclusive latents": points}, x_title="distance", y_title="latents"),
        tables.plain(titles, body, numeric=range(6)),
    )


def _answer(rungs: list[dict[str, Any]]) -> str:
    clear = [step for step in rungs[1:] if step["p"] is not None and step["p"] < CLEAR]
    counts = ", ".join(f"{step['n_exclusive']} at {step['distance']:g}" for step in rungs)
    if not clear:
        return f"No distance here shows more exclusive latents than a model against itself ({counts})."
    return (
        f"A direct diff sees more than noise from distance {clear[0]['distance']:g} of the step on "
        f"(exclusive latents: {counts})."
    )
