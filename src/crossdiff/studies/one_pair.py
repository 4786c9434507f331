"""Study of one pair: does the nu scatter separate exclusive latents from the rest?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from crossdiff.core.exclusive_call import NORM_EDGES, NU_ERROR, NU_RECONSTRUCTION
from crossdiff.data.corpus import as_mixture
from crossdiff.io.tables import alive, values
from crossdiff.models.pair import ModelPair
from crossdiff.report import tables
from crossdiff.report.formatting import tile, told
from crossdiff.report.runs import RunProducts
from crossdiff.report.study_page import Chart, Findings
from crossdiff.stages.study import Asked, Changes, Study
from crossdiff.studies.shared import count_interval, norm_chart, scatter_chart, spread

if TYPE_CHECKING:
    import pandas as pd

TWO_MODES = 5 / 9
"""Bimodality coefficient of a uniform distribution; larger values suggest two modes (SAS/STAT guide)."""
FEWEST = 10


class OnePair(Study):
    """The experiment's reference pair, or `pair`; `n_tokens` replaces the tokens of corpus and training."""

    QUESTION: ClassVar[str] = "Does the nu scatter of this pair separate exclusive latents from the rest?"

    pair: ModelPair | None = None
    layer: int | None = Field(default=None, ge=0)
    n_tokens: int | None = Field(default=None, ge=1)
    delta_norm_above: float = Field(default=NORM_EDGES[-1], ge=0.5, lt=1)
    """Latents with a larger delta_norm are judged: the tuned model's by norms."""
    nu_error: float = NU_ERROR
    nu_reconstruction: float = NU_RECONSTRUCTION

    def runs(self, experiment: Asked) -> Mapping[str, Changes]:
        """The one pair."""
        changes: dict[str, Any] = {"comparison": None, "model_pair": self.pair or experiment.pairs[0]}
        if self.layer is not None:
            changes["layer"] = self.layer
        if self.n_tokens is not None:
            changes["corpus"] = as_mixture(experiment.corpus).model_copy(update={"n_tokens": self.n_tokens})
            training = {"n_tokens": self.n_tokens, "n_steps": None}
            changes["training"] = experiment.training.model_copy(update=training)
        return {"pair": changes}

    def analyse(self, runs: Mapping[str, RunProducts], extras: Mapping[str, Path]) -> Findings:
        """Shrinkage, decoupling and bimodality of the latents that are tuned-only by norms."""
        run = runs["pair"]
        pair = run.pairs[0]
        latents = run.latents(pair)
        ratios = separation(latents, above=self.delta_norm_above)
        n_exclusive = run.figures(pair)["n_exclusive"]
        numbers = {"n_exclusive": n_exclusive, **ratios, **spread(run, pair)}
        charts = (
            scatter_chart(run, pair, nu_error=self.nu_error, nu_reconstruction=self.nu_reconstruction),
            norm_chart(run, pair),
            _table(ratios),
        )
        low, high = count_interval(n_exclusive)
        return Findings(
            _answer(pair, n_exclusive, ratios, above=self.delta_norm_above),
            notes=tuple(filter(None, [numbers["sentence"]])),
            tiles=(tile("Tuned-exclusive", str(n_exclusive), f"95 % interval {low:.0f} to {high:.0f}"),),
            charts=charts,
            numbers=numbers,
        )


def separation(latents: pd.DataFrame, *, above: float, seed: int = 0, draws: int = 1000) -> dict[str, Any]:
    """Bimodality of both ratios where delta_norm is above the bound, with 95 % bootstrap intervals."""
    living = alive(latents)
    chosen = living.loc[living["delta_norm"] > above]
    ratios: dict[str, Any] = {"n_judged": len(chosen)}
    generator = np.random.default_rng([seed, 11])
    for name in ("nu_error", "nu_reconstruction"):
        column = values(chosen, name)
        known = column[np.isfinite(column)]
        value, low, high = (float("nan"),) * 3
        if len(known) >= FEWEST and np.ptp(known) > 0:
            value = bimodality(known)
            drawn = [bimodality(generator.choice(known, len(known))) for _ in range(draws)]
            low, high = (float(bound) for bound in np.nanpercentile(drawn, [2.5, 97.5]))
        ratios[name] = {"n": len(known), "bimodality": value, "ci_low": low, "ci_high": high}
    return ratios


def bimodality(values: NDArray[np.float64]) -> float:
    """Sarle's coefficient (skewness^2 + 1) / (excess kurtosis + 3 (n-1)^2 / ((n-2)(n-3))), bias-corrected
    moments (SAS/STAT user's guide; Pfister et al. 2013, Front. Psychol. 4:700); NaN for constant values."""
    from scipy.stats import kurtosis, skew

    n = len(values)
    if n < 4 or np.ptp(values) == 0:
        return float("nan")
    correction = 3 * (n - 1) ** 2 / ((n - 2) * (n - 3))
    return float((skew(values, bias=False) ** 2 + 1) / (kurtosis(values, bias=False) + correction))


def _table(ratios: Mapping[str, Any]) -> Chart:
    rows = [
        [name, ratio["n"], ratio["bimodality"], ratio["ci_low"], ratio["ci_high"]]
        for name, ratio in ratios.items()
        if isinstance(ratio, Mapping)
    ]
    table = tables.plain(["Ratio", "Latents", "Bimodality", "Low", "High"], rows, numeric=range(1, 5))
    caption = "Sarle's coefficient with its 95 % bootstrap interval; above 5/9 = 0.556 speaks for two groups."
    return Chart("separation", "One group of latents, or two?", caption, table=table)


def _answer(pair: str, n_exclusive: int, ratios: Mapping[str, Any], *, above: float) -> str:
    start = f"On {pair}, {n_exclusive} latents pass latent scaling"
    if ratios["n_judged"] < FEWEST:
        return (
            f"{start}; only {ratios['n_judged']} have delta_norm above {above:g}, too few to say whether "
            "the nu scatter separates."
        )
    parts = [f"{name} {_verdict(ratios[name])}" for name in ("nu_error", "nu_reconstruction")]
    return f"{start}; among {ratios['n_judged']} with delta_norm above {above:g}, {' and '.join(parts)}."


def _verdict(ratio: Mapping[str, Any]) -> str:
    """One ratio's verdict; none with too few latents, or one value for all of them."""
    if ratio["n"] < FEWEST:
        return f"is known for {ratio['n']}, too few to judge"
    if ratio["bimodality"] != ratio["bimodality"]:
        return "is the same for all, so it separates nothing"
    if ratio["ci_low"] > TWO_MODES:
        verdict = "separates into two groups"
    else:
        verdict = "is one group" if ratio["ci_high"] < TWO_MODES else "is undecided"
    return f"{verdict} (bimodality {told(ratio['bimodality'])})"
