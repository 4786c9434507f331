"""The page's section of a comparison: delta chart and table, planted truth, nulls, matches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from crossdiff.report import caveats, figures, sentences, tables
from crossdiff.report.formatting import change_text, readable, share, visible
from crossdiff.report.sources import ComparisonSource
from crossdiff.report.style import height_of
from crossdiff.statistics import deltas

Block = dict[str, Any]


def comparison_section(comparison: ComparisonSource, drawn: dict[str, Any]) -> dict[str, Any]:
    """Template context of the comparison; its figures are added to `drawn`."""
    planted, represented = (known_changes(comparison, truth) for truth in ("planted", "represented"))
    figure = drawn["changes"] = figures.changes(comparison.deltas, planted=planted, represented=represented)
    caption = (
        f"Bar: share of labelled exclusive latents in {comparison.treatment} over the share in "
        f"{comparison.reference}; whisker: 95 % interval. Right: change and counts, treatment : reference. "
        "A solid bar: its interval and Fisher's test of its counts (5 %, one test) both exclude no change."
    )
    blocks = (
        _recovery(comparison),
        _rates(comparison),
        _nulls(comparison),
        _multiverse(comparison, drawn),
        _matched(comparison),
        caveats.refusals(comparison),
        caveats.not_measured(comparison),
    )
    return {
        "reference": comparison.reference,
        "treatment": comparison.treatment,
        "caption": caption,
        "height": height_of(figure),
        "table": tables.deltas(comparison.rows(), planted=planted, represented=represented),
        "lines": [visible(line) for line in sentences.comparison_lines(comparison)],
        "blocks": [{"text": None, "figure": None, "table": None, **block} for block in blocks if block],
    }


def known_changes(comparison: ComparisonSource, truth: str) -> dict[str, float]:
    """Category -> `planted` or `represented` relative change; empty where unknown."""
    rows = comparison.facts.get(truth) or []
    return {row["name"]: row["change"] for row in rows if row["change"] is not None}


def _recovery(comparison: ComparisonSource) -> Block | None:
    groups = comparison.facts.get("groups")
    if not groups:
        return None
    rows = []
    for name, group in groups.items():
        away = group.get("minus_keep") or {}
        rows.append(
            (
                name,
                _change(group.get("planted_change")),
                _change(group.get("change")),
                _interval(group.get("ci_low"), group.get("ci_high")),
                f"{group.get('count_treatment')} : {group.get('count_reference')}",
                _clear(name, away.get("ci_low"), away.get("ci_high")),
            )
        )
    titles = ["Group", "Planted", "Recovered", "95 % interval", "Counts", "Against the group that keeps"]
    return {
        "title": "Recovery of the planted truth",
        "text": "Planted: change of the share of distinct behaviours; recovered: change of the share of "
        "exclusive latents. The truth was joined after every latent had its category."
        + _represented(comparison.facts.get("against_represented")),
        "table": tables.plain(titles, rows, numeric=[1, 2]),
    }


def _represented(facts: dict[str, Any] | None) -> str:
    """How many intervals contain the represented change; empty where unknown."""
    if not facts:
        return ""
    return (
        " Represented (hollow diamonds): the change of the share of energy that the models' own activations "
        f"give to a category's behaviours. {facts['n_held']} of {facts['n_with_interval']} intervals hold it "
        f"and, of {facts['n_clear']} intervals without 0, {facts['n_clear_right']} lie on its side."
    )


def _clear(name: str, low: float | None, high: float | None) -> str:
    if name == "keep":
        return "–"
    if low is None or high is None:
        return "not known"
    if low > 0:
        return "above, interval clear of 0"
    return "below, interval clear of 0" if high < 0 else "interval holds 0"


def _change(value: float | None) -> tables.Cell:
    return tables.Cell("–" if value is None else change_text(value), sort=value)


def _interval(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{change_text(low)} to {change_text(high)}"


def _rates(comparison: ComparisonSource) -> Block | None:
    behaviours = (comparison.rates or {}).get("behaviours")
    if not behaviours:
        return None
    columns = [key for key in behaviours[0] if key.startswith(("planted_", "measured_"))]
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in behaviours:
        groups.setdefault(row["category"], []).append(row)
    rows = []
    for category, members in groups.items():
        means = [sum(row[column] for row in members) / len(members) for column in columns]
        rows.append(
            (readable(category), len(members), *(tables.Cell(share(mean), sort=mean) for mean in means))
        )
    titles = ["Category", "Behaviours", *(readable(column) for column in columns)]
    return {
        "title": "Behaviour rates",
        "text": "Mean rate per answer of a category's behaviours: planted, and measured in the models' own "
        "texts. Rates are not what is recovered: exclusive latents count concepts.",
        "table": tables.plain(titles, rows, numeric=range(1, len(titles))),
    }


def _nulls(comparison: ComparisonSource) -> Block | None:
    nulls = comparison.facts.get("nulls")
    if not nulls:
        return None
    block: Block = {"title": "Nulls", "text": " ".join(sentences.texts(nulls)) or None}
    return block | {"table": _records([row for row in nulls if isinstance(row, dict)])}


def _multiverse(comparison: ComparisonSource, drawn: dict[str, Any]) -> Block | None:
    multiverse = comparison.facts.get("multiverse")
    if not multiverse:
        return None
    names, choices = multiverse["names"], multiverse["choices"]
    values = [[math.inf if value == "new" else value for value in line] for line in multiverse["changes"]]
    figure = drawn["multiverse"] = figures.multiverse(names, choices, values)
    signs = multiverse.get("sign") or [{"same": 0, "of": 0}] * len(names)
    rows = [
        (readable(name), _kept(sign), *map(_chosen, line, counts))
        for name, line, counts, sign in zip(names, values, multiverse["counts"], signs, strict=True)
    ]
    return {
        "title": "Every analysis choice",
        "caption": "Relative change under each choice; a finding that holds keeps its colour along the row.",
        "figure": "multiverse",
        "height": height_of(figure),
        "table": tables.plain(["Category", "Sign kept", *choices], rows, numeric=range(1, len(choices) + 2)),
    }


def _chosen(change: float | None, counts: Sequence[int]) -> tables.Cell:
    """The change under one choice, or `new (3 vs 0)`."""
    if change is None or math.isfinite(change):
        return _change(change)
    return tables.Cell(deltas.change_text(counts[0], counts[1], change), sort=change)


def _kept(sign: dict[str, int]) -> tables.Cell:
    """Number of choices in which the change has the headline's sign."""
    if not sign["of"]:
        return tables.Cell("–")
    return tables.Cell(f"{sign['same']} of {sign['of']}", sort=sign["same"] / sign["of"])


def _matched(comparison: ComparisonSource) -> Block | None:
    matched = comparison.facts.get("matched")
    if not matched:
        return None
    rows = [
        (
            _latent(comparison.reference, row["reference"]),
            _latent(comparison.treatment, row["treatment"]),
            row.get("cosine"),
            row.get("correlation"),
            {True: "both", False: "one"}.get(row.get("both_exclusive")),
        )
        for row in matched.get("pairs", [])
    ]
    return {
        "title": "Matched and new latents",
        "text": _matched_text(matched, comparison.reference, comparison.treatment),
        "table": tables.plain(
            [comparison.reference, comparison.treatment, "Cosine", "Correlation", "Exclusive"],
            rows,
            numeric=[0, 1, 2, 3],
        ),
    }


def _matched_text(matched: dict[str, Any], reference: str, treatment: str) -> str:
    """Sentence with the counts of exclusive latents per pair; two latents of a pair may share a twin."""
    counts = {pair: matched["counts"][pair] for pair in (reference, treatment)}
    twins = " and ".join(
        f"{numbers['twin']:,} of {numbers['n_exclusive']:,} exclusive latents of {pair}"
        for pair, numbers in counts.items()
    )
    near = " and ".join(
        f"{numbers['n_exclusive'] - numbers['twin'] - numbers['new']:,} of {pair}"
        for pair, numbers in counts.items()
    )
    n_new, n_gone = len(matched["new"]), len(matched["gone"])
    return (
        f"{twins} have a twin in the other pair's crosscoder: one latent that passes both rules "
        f"({matched['rule']}); {n_new:,} are new in {treatment}, {n_gone:,} are only in {reference}; "
        f"{near} are near in direction or in code, but no latent is near in both."
    )


def _latent(pair: str, latent: int) -> tables.Cell:
    return tables.Cell(str(latent), sort=float(latent), href=f"#latent-{pair}-{latent}")


def _records(rows: list[dict[str, Any]]) -> tables.Table | None:
    if not rows:
        return None
    titles = [key for key in rows[0] if key != "sentence"]
    body = [[row.get(key) for key in titles] for row in rows]
    numeric = [index for index, key in enumerate(titles) if isinstance(rows[0][key], int | float)]
    return tables.plain([readable(title) for title in titles], body, numeric=numeric)
