"""Study: do counts, categories and signs of changes depend on the layer?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator

from crossdiff.report.formatting import between, tile, told
from crossdiff.report.runs import RunProducts
from crossdiff.report.study_page import Findings
from crossdiff.stages.study import Asked, Changes, Study
from crossdiff.studies.changes import CategoryCounts, changes_chart, stability
from crossdiff.studies.shared import counts_chart


class Layers(Study):
    """The same comparison at every one of `layers` (0-based block indices)."""

    QUESTION: ClassVar[str] = "Do exclusive counts, categories and signs depend on the layer?"

    layers: tuple[int, ...] = Field(min_length=2)

    @field_validator("layers")
    @classmethod
    def _distinct(cls, layers: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(layers)) != len(layers) or min(layers) < 0:
            raise ValueError(
                f"study.layers={list(layers)}: name every layer once, 0-based, for example [10,20,30]"
            )
        return layers

    def runs(self, experiment: Asked) -> Mapping[str, Changes]:
        """One run per layer; all share one forward pass per model."""
        return {f"layer_{layer}": {"layer": layer} for layer in self.layers}

    def analyse(self, runs: Mapping[str, RunProducts], extras: Mapping[str, Path]) -> Findings:
        """Sign stability over the layers, with intervals and chance."""
        charts = [counts_chart(runs, x_title="layer (0-based block)", places=list(self.layers))]
        if any(run.comparison is None for run in runs.values()):
            n_exclusive = {name: run.figures(run.pairs[0])["n_exclusive"] for name, run in runs.items()}
            listed = ", ".join(f"{count} at {name.replace('_', ' ')}" for name, count in n_exclusive.items())
            answer = f"On this pair the tuned-exclusive latents number {listed}."
            return Findings(answer, charts=tuple(charts), numbers={"n_exclusive": n_exclusive})
        counts = CategoryCounts.of(list(runs.values()))
        stable = stability(counts)
        charts.append(changes_chart(counts, runs))
        return Findings(
            _answer(stable, self.layers),
            notes=(_note(stable),),
            tiles=_tiles(stable),
            charts=tuple(charts),
            numbers={**stable, "layers": list(self.layers), "categories": list(counts.names)},
        )


def _answer(stable: Mapping[str, Any], layers: tuple[int, ...]) -> str:
    listed = ", ".join(map(str, layers))
    if not stable["judged"]:
        return f"Layers {listed} share no category that could be judged: stability of signs is unknown."
    least = stable["share_low"] * stable["judged"]
    if least != least:
        verdict = "whether that is more than chance explains cannot be said"
    else:
        verdict = f"this is {'more' if least > stable['chance'] else 'no more'} than chance explains"
    return (
        f"On this comparison, {stable['kept']} of {stable['judged']} categories keep their sign across "
        f"layers {listed}; chance alone would keep {told(stable['chance'], '.1f')}, so {verdict}."
    )


def _note(stable: Mapping[str, Any]) -> str:
    return (
        "95 % interval of the share that keeps its sign: "
        f"{between(stable['share_low'], stable['share_high'], '.0%')} (latents resampled); chance: every "
        "run's changes shuffled over its categories."
    )


def _tiles(stable: Mapping[str, Any]) -> tuple[dict[str, str], ...]:
    return (
        tile("Categories that keep their sign", f"{stable['kept']} of {stable['judged']}", "in every run"),
        tile("By chance", told(stable["chance"], ".1f"), "mean over shuffles"),
        tile("Rank correlation of two runs", told(stable["spearman"], "+.2f"), "mean over all two runs"),
    )
