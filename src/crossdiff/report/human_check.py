"""The human check as lines for the terminal and tables for the page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossdiff.io.tables import read_json
from crossdiff.report import tables
from crossdiff.report.formatting import readable

FOLDER = "validation"
AGREEMENT = "agreement.json"


def read_agreement(results: Path, *, annotate: str) -> dict[str, Any] | None:
    """Agreement with the annotations of this key (`validate.mode=import`); None without a human check."""
    path = results / FOLDER / AGREEMENT
    check = read_json(path) if path.is_file() else None
    return check if check is not None and check["annotate"] == annotate else None


def agreement_lines(check: Mapping[str, Any]) -> list[str]:
    """The agreement as lines of plain text."""
    return [
        f"human check of {check['n_items']} {check['unit']}s, balanced over the annotator's categories",
        *(f"{name}: {count} not rated" for name, count in check["unrated"].items() if count),
        *(line for level in ("class", "category") for line in _level_lines(level, check["levels"][level])),
    ]


def _level_lines(level: str, facts: Mapping[str, Any]) -> list[str]:
    lines = [f"{level} level", f"  Krippendorff's alpha, people and annotator: {_number(facts['alpha'])}"]
    if "alpha_between_people" in facts:
        lines.append(f"  Krippendorff's alpha between people: {_number(facts['alpha_between_people'])}")
    for name, rater in facts["raters"].items():
        kappa, ac1 = _number(rater["kappa"]), _number(rater["ac1"])
        lines.append(
            f"  {name} with the annotator (n = {rater['n']}): Cohen's kappa {kappa}, Gwet's AC1 {ac1}"
        )
    lines += [
        f"  {row['name']}: precision {_number(row['precision'])} ({row['agreed']} of {row['annotator']}), "
        f"recall {_number(row['recall'])} ({row['agreed']} of {row['people']})"
        for row in facts["precision_recall"]
    ]
    return [*lines, "  confusion (rows: people, columns: annotator)", *_confusion_lines(facts["confusion"])]


def _confusion_lines(table: Mapping[str, Any]) -> list[str]:
    width = max((len(name) for name in table["names"]), default=0)
    heads = " ".join(f"{index:>3}" for index in range(1, len(table["names"]) + 1))
    return [
        f"    {'':<{width}}      {heads}",
        *(
            f"    {name:<{width}} {index:>3}  {' '.join(f'{count:>3}' for count in counts)}"
            for index, (name, counts) in enumerate(zip(table["names"], table["counts"], strict=True), start=1)
        ),
    ]


def _number(facts: Mapping[str, float | None] | None) -> str:
    if facts is None or facts["value"] is None:
        return "not defined"
    if facts["ci_low"] is None or facts["ci_high"] is None:
        return f"{facts['value']:.2f}"
    return f"{facts['value']:.2f} ({facts['ci_low']:.2f} to {facts['ci_high']:.2f})"


def block(check: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The page's block; None without a human check."""
    if check is None:
        return None
    rows, detail = [], []
    for level in ("class", "category"):
        facts = check["levels"][level]
        rows.append((level, "all and the annotator", None, _number(facts["alpha"]), None, None))
        rows += [
            (level, name, rater["n"], None, _number(rater["kappa"]), _number(rater["ac1"]))
            for name, rater in facts["raters"].items()
        ]
        detail += [
            (level, readable(row["name"]), row["annotator"], _number(row["precision"]), row["people"],
             _number(row["recall"]))
            for row in facts["precision_recall"]
        ]  # fmt: skip
    titles = ["Level", "Who", "Items", "Krippendorff's alpha", "Cohen's kappa", "Gwet's AC1"]
    heads = ["Level", "Name", "Said by annotator", "Precision", "Said by people", "Recall"]
    return {
        "text": f"{check['n_items']} {check['unit']}s, blind, balanced over the annotator's categories; 95 % "
        "intervals over items. Rows of the confusion: people; columns: the annotator.",
        "agreement": tables.plain(titles, rows, numeric=[2]),
        "detail": tables.plain(heads, detail, numeric=[2, 4]),
        "confusion": _confusion(check["levels"]["class"]["confusion"]),
    }


def _confusion(table: Mapping[str, Any]) -> tables.Table:
    names = [readable(name) for name in table["names"]]
    rows = [(name, *counts) for name, counts in zip(names, table["counts"], strict=True)]
    return tables.plain(["People \\ annotator", *names], rows, numeric=range(1, len(names) + 1))
