"""Study: are two tuned models too similar for a crosscoder to separate them?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from crossdiff.report import tables
from crossdiff.report.formatting import tile, told
from crossdiff.report.runs import RunProducts
from crossdiff.report.study_page import Chart, Findings
from crossdiff.stages.study import Asked, Changes, Study
from crossdiff.studies.shared import count_interval, direct_pair, norm_chart, spread, three_models


class Direct(Study):
    """The direct pair of the tuned models, and both pairs with the shared base."""

    QUESTION: ClassVar[str] = "Does a direct diff of the two tuned models see what the shared base shows?"

    def runs(self, experiment: Asked) -> Mapping[str, Changes]:
        """The comparison through the base, and the direct pair."""
        comparison = three_models(experiment, "direct")
        return {"base": {}, "direct": {"comparison": None, "model_pair": direct_pair(comparison)}}

    def analyse(self, runs: Mapping[str, RunProducts], extras: Mapping[str, Path]) -> Findings:
        """Exclusive counts of the three pairs, and the spread of their norms."""
        placed = {pair: run for run in runs.values() for pair in run.pairs}
        direct = runs["direct"].pairs[0]
        rows = {
            pair: {
                "n_exclusive": run.figures(pair)["n_exclusive"],
                "n_exclusive_base": run.figures(pair)["n_exclusive_base"],
                **spread(run, pair),
            }
            for pair, run in placed.items()
        }
        fewer = {
            pair: fewer_test(rows[direct]["n_exclusive"], rows[pair]["n_exclusive"])
            for pair in runs["base"].pairs
        }
        charts = [_counts(rows), *(norm_chart(run, pair) for pair, run in placed.items())]
        return Findings(
            _answer(direct, rows, fewer),
            notes=tuple(f"{pair}: {row['sentence']}" for pair, row in rows.items() if row["sentence"]),
            tiles=tuple(tile(pair, str(row["n_exclusive"]), "tuned-exclusive") for pair, row in rows.items()),
            charts=tuple(charts),
            numbers={"pairs": rows, "fewer": fewer, "direct": direct},
        )


def fewer_test(n_direct: int, n_other: int) -> dict[str, Any]:
    """Exact conditional test that the direct count is smaller (Przyborowski and Wilenski 1940).

    Given the sum of two Poisson counts the first is binomial with one half; `p` is P(X <= n_direct).
    """
    from scipy.stats import binomtest

    total = n_direct + n_other
    p = float(binomtest(n_direct, total, 0.5, alternative="less").pvalue) if total else None
    return {"direct": n_direct, "other": n_other, "p": p}


def _counts(pairs: Mapping[str, Mapping[str, Any]]) -> Chart:
    from crossdiff.report.figures.curves import Point, rows

    points, body = [], []
    for pair, row in pairs.items():
        low, high = count_interval(row["n_exclusive"])
        points.append(Point(pair, row["n_exclusive"], low, high))
        body.append(
            [
                pair, row["n_exclusive"], f"{low:.1f} to {high:.1f}", row["n_exclusive_base"],
                row["n_alive"], row["n_below_0.1"], row["n_above_0.9"], row["share_0.3_0.6"],
                row["verdict"],
            ]
        )  # fmt: skip
    titles = [
        "Pair",
        "Tuned-exclusive",
        "95 % interval",
        "Base-exclusive",
        "Alive",
        "delta_norm < 0.1",
        "> 0.9",
    ]
    titles += ["Share 0.3 to 0.6", "Signature"]
    return Chart(
        "counts",
        "Exclusive latents of the three pairs",
        "Latents that pass latent scaling for the tuned model; bars are 95 % intervals of a Poisson count.",
        rows({"tuned-exclusive": points}, x_title="latents"),
        tables.plain(titles, body, numeric=[1, 3, 4, 5, 6, 7]),
    )


CLOSENESS = {
    "too_similar": "this pair is too similar",
    "trained_too_short": "its crosscoder was trained too short to say how similar it is",
}


def _answer(direct: str, pairs: Mapping[str, Any], fewer: Mapping[str, Any]) -> str:
    row = pairs[direct]
    parts = [f"{test['other']} of {pair}{_p(test['p'])}" for pair, test in fewer.items()]
    smaller = all(test["p"] is not None and test["p"] < 0.05 for test in fewer.values())
    verdict = "fewer than either" if smaller else "not clearly fewer than each"
    start = (
        f"The direct pair {direct} has {row['n_exclusive']} tuned-exclusive latents, {verdict} base "
        f"comparison ({' and '.join(parts)})"
    )
    if not row["n_alive"]:
        return f"{start}; none of its latents was ever active, so its norms say nothing."
    empty = row["n_below_0.1"] == 0 and row["n_above_0.9"] == 0
    bins = (
        "its outer norm bins are empty"
        if empty
        else f"its outer norm bins hold {row['n_below_0.1']} and {row['n_above_0.9']}"
    )
    close = CLOSENESS.get(row["verdict"], "it is not called too similar")
    middle = told(row["share_0.3_0.6"], ".0%")
    return f"{start}; {bins}, {middle} lie in 0.3 to 0.6, and {close} by its norms."


def _p(value: float | None) -> str:
    return "" if value is None else f" (one-sided p = {value:.2g})"
