"""Study of the main result: class and category changes beside the published ones."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import yaml

from crossdiff.io.tables import where
from crossdiff.report import tables
from crossdiff.report.delta_rows import delta_rows, log2_factor
from crossdiff.report.formatting import change_text, finite, tile, told
from crossdiff.report.runs import RunProducts
from crossdiff.report.study_page import Chart, Findings
from crossdiff.settings import Settings
from crossdiff.stages.study import Asked, Changes, Study
from crossdiff.studies.shared import count_interval, three_models

if TYPE_CHECKING:
    import pandas as pd


FILE = Path(__file__).with_name("published.yaml")
"""Data file of the published numbers, with their source."""


class PublishedChange(Settings):
    """A published relative change, and its row of the taxonomy.

    `counts` (treatment, reference) are the smallest that give the percentage; no count was published.
    """

    published: str
    level: Literal["class", "category"]
    name: str
    change: float
    counts: tuple[int, int]


class Published(Settings):
    """The content of published.yaml."""

    version: Literal[1]
    source: str
    where: str
    pairs: dict[str, str]
    exclusive: dict[str, int]
    direct: dict[str, Any]
    changes: tuple[PublishedChange, ...]
    causal: dict[str, Any]


@cache
def published() -> Published:
    """The published numbers."""
    return Published.model_validate(yaml.safe_load(FILE.read_text(encoding="utf-8")))


class Paper(Study):
    """The experiment's comparison beside the published numbers, which do not apply to the toy."""

    QUESTION: ClassVar[str] = "Do our class and category changes agree with the published ones?"

    def runs(self, experiment: Asked) -> Mapping[str, Changes]:
        """The comparison."""
        three_models(experiment, "paper")
        return {"comparison": {}}

    def analyse(self, runs: Mapping[str, RunProducts], extras: Mapping[str, Path]) -> Findings:
        """Every published change beside ours, with counts and interval."""
        run = runs["comparison"]
        rows = [_beside(change, run.deltas()) for change in published().changes]
        pairs = dict(zip(("reference", "treatment"), run.pairs, strict=True))
        counts = {side: run.figures(pair)["n_exclusive"] for side, pair in pairs.items()}
        notes = [f"Published numbers: {published().source}; {published().where}."]
        if run.comparison and run.comparison.get("planted"):
            rho = (run.comparison.get("spearman") or {}).get("rho")
            notes.append(
                "These are the toy's models: what was planted in them, not the publication, is their truth "
                f"(rank correlation of recovered with planted change: {told(rho, '+.2f')})."
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
    """The published change and ours; `inside`: whether the published one is in our interval, None if unknown.

    `same_sign` is None for a change of exactly 0, which has no sign.
    """
    rows = where(deltas, level=change.level, name=change.name)
    if rows.empty:
        raise ValueError(
            f"the taxonomy of this run has no {change.level} {change.name!r}, which is compared with a "
            "published change; use taxonomy=paper with this study"
        )
    (row,) = delta_rows(rows)
    low, high = row.interval
    known = low == low and high == high
    signed = row.change == row.change and row.change != 0
    return {
        "name": change.name,
        "published_as": change.published,
        "published": change.change,
        "change": row.change,
        "text": row.text,
        "interval": row.interval_text(),
        "log2_ratio": row.value,
        "ci_low": low,
        "ci_high": high,
        "count_reference": row.counts[0],
        "count_treatment": row.counts[1],
        "p_value": row.p_value,
        "same_sign": (row.change > 0) == (change.change > 0) if signed else None,
        "inside": low <= change.change <= high if known else None,
        "excludes_zero": not row.holds_zero if known else None,
    }


def _chart(rows: list[dict[str, Any]]) -> Chart:
    from crossdiff.report.figures.curves import Point
    from crossdiff.report.figures.curves import rows as dots

    ours = [
        Point(r["published_as"], r["log2_ratio"], log2_factor(r["ci_low"]), log2_factor(r["ci_high"]))
        for r in rows
    ]
    theirs = [Point(row["published_as"], log2_factor(row["published"])) for row in rows]
    titles = ["Published as", "Published", "Here", "95 % interval", "Treatment", "Reference", "p", "Inside"]
    body = [
        [
            row["published_as"],
            tables.Cell(change_text(row["published"]), sort=row["published"]),
            tables.Cell(row["text"], sort=finite(row["change"])),
            row["interval"],
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
        dots({"found here": ours, "published": theirs}, x_title="log2 of the ratio of shares"),
        tables.plain(titles, body, numeric=[1, 2, 4, 5, 6]),
    )


def _answer(rows: list[dict[str, Any]], counts: Mapping[str, int]) -> str:
    signs = [row["same_sign"] for row in rows if row["same_sign"] is not None]
    inside = [row["inside"] for row in rows if row["inside"] is not None]
    clear = sum(row["excludes_zero"] is True for row in rows)
    given = published().exclusive
    bounds = [count_interval(count) for count in counts.values()]
    fits = all(low <= given[side] <= high for side, (low, high) in zip(counts, bounds, strict=True))
    shown = f"{sum(signs)} of the {len(signs)} with a sign here have it" if signs else "none has a sign here"
    held = (
        f"{sum(inside)} of {len(inside)} lie inside our intervals, and {clear} of our own exclude zero"
        if inside
        else "and none can be held against an interval of ours"
    )
    return (
        f"Of {len(rows)} published changes, {shown}, {held}; exclusive latents number {counts['reference']} "
        f"and {counts['treatment']} against the published {given['reference']} and {given['treatment']}, "
        f"which {'fit' if fits else 'do not both fit'} ours."
    )
