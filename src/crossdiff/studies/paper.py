"""The main result: class and category changes through the shared base, beside the published ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from crossdiff.report import tables
from crossdiff.report.findings import Chart, Findings
from crossdiff.report.products import RunProducts
from crossdiff.report.words import change_text
from crossdiff.stages.study import Asked, Changes, Study
from crossdiff.studies.counts import count_interval, tile
from crossdiff.studies.pairs import three_models
from crossdiff.studies.published import PublishedChange, published

if TYPE_CHECKING:
    import pandas as pd


class Paper(Study):
    """The comparison as it stands; on the toy the published numbers are shown, nothing speaks for them."""

    QUESTION: ClassVar[str] = "Do our class and category changes agree with the published ones?"

    def runs(self, experiment: Asked) -> Mapping[str, Changes]:
        """The comparison."""
        three_models(experiment, "paper")
        return {"comparison": {}}

    def analyse(self, runs: Mapping[str, RunProducts], extras: Mapping[str, Path]) -> Findings:
        """Every published change beside the one found, with counts and interval."""
        run = runs["comparison"]
        rows = [_beside(change, run.deltas()) for change in published().changes]
        pairs = dict(zip(("reference", "treatment"), run.pairs, strict=True))
        counts = {side: run.figures(pair)["n_exclusive"] for side, pair in pairs.items()}
        notes = [f"Published numbers: {published().source}; {published().where}."]
        if run.comparison and run.comparison.get("planted"):
            rho = (run.comparison.get("spearman") or {}).get("rho")
            correlation = "unknown" if rho is None else f"{rho:+.2f}"
            notes.append(
                "These are the toy's models: what was planted in them, not the publication, is their truth "
                f"(rank correlation of recovered with planted change: {correlation})."
            )
        return Findings(
            _answer(rows, counts),
            notes=tuple(notes),
            tiles=tuple(
                tile(
                    f"{pair}: tuned-exclusive", str(counts[side]), f"published: {published().exclusive[side]}"
                )
                for side, pair in pairs.items()
            ),
            charts=(_chart(rows),),
            numbers={"exclusive": counts, "published_exclusive": published().exclusive, "changes": rows},
        )


def _beside(change: PublishedChange, deltas: pd.DataFrame) -> dict[str, Any]:
    """The published change and ours; `inside`: the published one lies in our interval, None if unknown."""
    own = deltas[(deltas.level == change.level) & (deltas.name == change.name)]
    if own.empty:
        raise ValueError(
            f"the taxonomy of this run has no {change.level} {change.name!r}, which is held against a "
            "published change; use taxonomy=paper with this study"
        )
    row = own.iloc[0]
    low, high = float(row.ci_low), float(row.ci_high)
    known = low == low and high == high
    return {
        "name": change.name,
        "published_as": change.published,
        "published": change.change,
        "change": float(row.relative_change),
        "ci_low": low,
        "ci_high": high,
        "count_reference": int(row.count_reference),
        "count_treatment": int(row.count_treatment),
        "p_value": float(row.p_value),
        "same_sign": None
        if row.relative_change != row.relative_change
        else bool((row.relative_change > 0) == (change.change > 0)),
        "inside": bool(low <= change.change <= high) if known else None,
        "excludes_zero": bool(low > 0 or high < 0) if known else None,
    }


def _chart(rows: list[dict[str, Any]]) -> Chart:
    from crossdiff.report.figures.curves import Point
    from crossdiff.report.figures.curves import rows as dots
    from crossdiff.report.figures.rows import log2_factor

    def bound(value: float) -> float:
        return log2_factor(value) if value == value else value

    own = [
        Point(r["published_as"], log2_factor(r["change"]), bound(r["ci_low"]), bound(r["ci_high"]))
        for r in rows
    ]
    theirs = [Point(row["published_as"], log2_factor(row["published"])) for row in rows]
    titles = ["Published as", "Published", "Here", "95 % interval", "Treatment", "Reference", "p", "Inside"]
    body = [
        [
            row["published_as"],
            tables.Cell(change_text(row["published"]), sort=row["published"]),
            tables.Cell(change_text(row["change"]), sort=_finite(row["change"])),
            f"{change_text(row['ci_low'])} to {change_text(row['ci_high'])}",
            row["count_treatment"], row["count_reference"], row["p_value"],
            {True: "yes", False: "no", None: "unknown"}[row["inside"]],
        ]
        for row in rows
    ]  # fmt: skip
    return Chart(
        "published",
        "Published changes and those found here",
        "log2 of the ratio of shares, treatment against reference, clipped to 4; bars are 95 % intervals "
        "over latents. The publication gives neither counts nor intervals.",
        dots({"found here": own, "published": theirs}, x_title="log2 of the ratio of shares"),
        tables.plain(titles, body, numeric=[1, 2, 4, 5, 6]),
    )


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None


def _answer(rows: list[dict[str, Any]], counts: Mapping[str, int]) -> str:
    signs = [row["same_sign"] for row in rows if row["same_sign"] is not None]
    inside = [row["inside"] for row in rows if row["inside"] is not None]
    clear = sum(row["excludes_zero"] is True for row in rows)
    given = published().exclusive
    bounds = [count_interval(count) for count in counts.values()]
    fits = all(low <= given[side] <= high for side, (low, high) in zip(counts, bounds, strict=True))
    return (
        f"Of {len(rows)} published changes, {sum(signs)} of the {len(signs)} with a sign here have it, "
        f"{sum(inside)} of {len(inside)} lie inside our intervals, and {clear} of our own changes exclude "
        f"zero; exclusive latents number {counts['reference']} and {counts['treatment']} against the "
        f"published {given['reference']} and {given['treatment']}, which "
        f"{'fit' if fits else 'do not both fit'} ours."
    )
