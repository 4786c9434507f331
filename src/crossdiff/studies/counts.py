"""Numbers of exclusive latents over the runs of a study, and the small parts that pages share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from crossdiff.report.findings import Chart
from crossdiff.report.products import RunProducts
from crossdiff.report.sections import tile

__all__ = ["count_interval", "counts_chart", "tile"]

COLUMNS = ("fve_base", "fve_tuned", "l0", "dead_share", "n_exclusive", "n_exclusive_base", "n_undecided")


def count_interval(count: int) -> tuple[float, float]:
    """Exact 95 % interval of a Poisson mean (Garwood 1936): chi-square quantiles of 2n and 2n + 2 degrees."""
    from scipy.stats import chi2

    low = chi2.ppf(0.025, 2 * count) / 2 if count else 0.0
    return float(low), float(chi2.ppf(0.975, 2 * count + 2) / 2)


def counts_chart(
    runs: Mapping[str, RunProducts], *, x_title: str, places: Sequence[float | str] | None = None
) -> Chart:
    """Tuned-exclusive latents of every pair over the runs, with the quality figures as the table."""
    from crossdiff.report import tables
    from crossdiff.report.figures.curves import Point, curves

    at = places or list(runs)
    series: dict[str, list[Point]] = {}
    body = []
    for place, run in zip(at, runs.values(), strict=True):
        for pair in run.pairs:
            figures = run.figures(pair)
            low, high = count_interval(figures["n_exclusive"])
            series.setdefault(pair, []).append(Point(place, figures["n_exclusive"], low, high))
            body.append([run.name, pair, *(figures[column] for column in COLUMNS)])
    titles = ["Run", "Pair", *(column.replace("_", " ") for column in COLUMNS)]
    return Chart(
        "counts",
        "Tuned-exclusive latents",
        "Latents that pass latent scaling, per pair; bars are 95 % intervals of a Poisson count.",
        curves(series, x_title=x_title, y_title="latents"),
        tables.plain(titles, body, numeric=range(2, len(titles))),
    )
