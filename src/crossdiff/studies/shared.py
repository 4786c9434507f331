"""Shared by studies: three models and their pairs, counts of exclusive latents, norms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from crossdiff.io.tables import alive as alive_latents
from crossdiff.io.tables import values
from crossdiff.models.pair import ModelPair
from crossdiff.report.runs import RunProducts
from crossdiff.report.study_page import Chart
from crossdiff.stages.study import Asked, AskedComparison

if TYPE_CHECKING:
    from crossdiff.report.figures.curves import Point


def three_models(experiment: Asked, study: str) -> AskedComparison:
    """The experiment's comparison; ValueError where only one pair is given."""
    if experiment.comparison is None:
        given = experiment.pairs[0].name
        raise ValueError(
            f"study {study} needs three models (two pairs that share their base), and model_pair={given} has "
            "two; give comparison=it_vs_simpo (or toy_it_vs_simpo) instead of model_pair"
        )
    return experiment.comparison


def direct_pair(comparison: AskedComparison) -> ModelPair:
    """The pair of the two tuned models, with the reference pair's template."""
    reference, treatment = comparison.reference, comparison.treatment
    return ModelPair(
        name=f"{reference.tuned.name}_{treatment.tuned.name}",
        base=reference.tuned,
        tuned=treatment.tuned,
        template=reference.template_model,
    )


COLUMNS = ("fve_base", "fve_tuned", "l0", "dead_share", "n_exclusive", "n_exclusive_base", "n_undecided")


def count_interval(count: int) -> tuple[float, float]:
    """Exact 95 % interval of a Poisson mean (Garwood 1936): chi-square quantiles of 2n and 2n + 2 degrees."""
    from scipy.stats import chi2

    low = chi2.ppf(0.025, 2 * count) / 2 if count else 0.0
    return float(low), float(chi2.ppf(0.975, 2 * count + 2) / 2)


def count_point(place: float | str, count: int) -> Point:
    """A count of latents for a figure, with its 95 % interval."""
    from crossdiff.report.figures.curves import Point

    return Point(place, count, *count_interval(count))


def counts_chart(
    runs: Mapping[str, RunProducts], *, x_title: str, places: Sequence[float | str] | None = None
) -> Chart:
    """Tuned-exclusive latents of every pair over the runs, with a table of quality figures."""
    from crossdiff.report import tables
    from crossdiff.report.figures.curves import curves

    at = places or list(runs)
    series: dict[str, list[Point]] = {}
    body = []
    for place, run in zip(at, runs.values(), strict=True):
        for pair in run.pairs:
            figures = run.figures(pair)
            series.setdefault(pair, []).append(count_point(place, figures["n_exclusive"]))
            body.append([run.name, pair, *(figures[column] for column in COLUMNS)])
    titles = ["Run", "Pair", *(column.replace("_", " ") for column in COLUMNS)]
    return Chart(
        "counts",
        "Tuned-exclusive latents",
        "Latents that pass latent scaling, per pair; bars are 95 % intervals of a Poisson count.",
        curves(series, x_title=x_title, y_title="latents"),
        tables.plain(titles, body, numeric=range(2, len(titles))),
    )


def spread(run: RunProducts, pair: str) -> dict[str, Any]:
    """Alive latents with delta_norm below 0.1 and above 0.9, share in 0.3 to 0.6, and the signature.

    The signature is the run's, which depends on the length of training too: by norms alone a pair with a
    short training would be too similar.
    """
    import torch

    from crossdiff.core.diagnostics import beyond_outer, middle_share, signature

    alive = torch.tensor(values(alive_latents(run.latents(pair)), "delta_norm"))
    words = run.figures(pair).get("signature") or signature(alive)
    below, above = beyond_outer(alive)
    return {
        "n_alive": len(alive),
        "n_below_0.1": below,
        "n_above_0.9": above,
        "share_0.3_0.6": middle_share(alive),
        "verdict": words["verdict"],
        "sentence": words["sentence"],
    }


def norm_chart(run: RunProducts, pair: str) -> Chart:
    """The delta_norm histogram of one pair."""
    from crossdiff.report import figures

    return Chart(
        f"norms-{pair}",
        f"{pair}: delta_norm of all alive latents",
        "0: only the base model decodes the latent, 1: only the tuned one, one half: both alike.",
        figures.delta_norm(run.latents(pair)),
        wide=False,
    )


def scatter_chart(run: RunProducts, pair: str, *, nu_error: float, nu_reconstruction: float) -> Chart:
    """nu_error against nu_reconstruction of one pair."""
    from crossdiff.report import figures

    return Chart(
        f"nu-{pair}",
        f"{pair}: what the base model holds of every latent",
        "Exclusive latents as points inside the dashed box; the crowd of all others as a density.",
        figures.nu_scatter(run.latents(pair), nu_error=nu_error, nu_reconstruction=nu_reconstruction),
        wide=False,
    )
