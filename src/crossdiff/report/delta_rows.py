"""The rows of a delta table for charts and tables, and the stability of a change's sign over runs."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crossdiff.io.tables import rows_of
from crossdiff.report.formatting import change_text, readable

if TYPE_CHECKING:
    import pandas as pd


LIMIT = 4.0
"""log2 of the largest factor that a bar shows; a longer bar ends at the edge, with its value in the text."""


def log2_factor(change: float | None) -> float:
    """log2(share_treatment / share_reference) from the relative change, within +-LIMIT; NaN if unknown."""
    if change is None or math.isnan(change):
        return math.nan
    if change <= -1:
        return -LIMIT
    return max(-LIMIT, min(LIMIT, math.log2(1 + change)))


@dataclass(frozen=True)
class DeltaRow:
    """One class or category: counts over totals, shares, relative change with its 95 % interval, p and q."""

    level: str
    name: str
    parent: str | None
    counts: tuple[int, int]
    totals: tuple[int, int]
    shares: tuple[float, float]
    change: float
    interval: tuple[float, float]
    p_value: float
    q_value: float
    p_seed_null: float = math.nan
    per_run: tuple[str, str] | None = None
    """Counts of every crosscoder, treatment and reference, where a pair has several."""
    runs_agree: float = math.nan
    holds_against_median: str = ""

    @property
    def is_class(self) -> bool:
        """Whether this is a class rather than a category."""
        return self.level == "class"

    @property
    def is_new(self) -> bool:
        """Whether only the treatment has it."""
        reference, treatment = self.counts
        return reference == 0 and treatment > 0

    @property
    def value(self) -> float:
        """Length of the bar: log2 of the ratio of shares, LIMIT for a new category; NaN if unknown."""
        if self.counts[0] == 0:
            return LIMIT if self.is_new else math.nan
        return log2_factor(self.change)

    @property
    def holds_zero(self) -> bool:
        """Whether the interval contains 0 or is unknown."""
        low, high = self.interval
        return not (low > 0 or high < 0)

    @property
    def clear(self) -> bool:
        """Whether the interval and Fisher's test both exclude no change.

        The two are different statistics: in 30 of 1,109 tables an interval clear of 0 has p above 0.05.
        """
        if self.holds_zero:
            return False
        pairs = zip(self.counts, self.totals, strict=True)
        from crossdiff.statistics.significance import TEST_LEVEL, fisher_p_value

        return fisher_p_value(*(number for pair in pairs for number in pair)) <= TEST_LEVEL

    @property
    def text(self) -> str:
        """The change as text: a signed percentage, `new (3 vs 0)`, or `none in either`."""
        reference, treatment = self.counts
        if reference == 0:
            return f"new ({treatment} vs 0)" if treatment else "none in either"
        return change_text(self.change)

    @property
    def sign(self) -> str:
        """Colour and filling of the bar in words."""
        if self.holds_zero:
            return "interval holds 0"
        direction = "more" if self.interval[0] > 0 else "less"
        from crossdiff.statistics.significance import TEST_LEVEL

        return direction if self.clear else f"{direction}, but p > {TEST_LEVEL:g}"

    @property
    def tick(self) -> str:
        """The name on the axis, escaped for plotly's markup, classes in bold."""
        name = html.escape(readable(self.name), quote=False)
        return f"<b>{name}</b>" if self.is_class else name

    def interval_text(self) -> str:
        """`-20.0 % to +45.0 %`, or `no interval`."""
        low, high = self.interval
        if math.isnan(low) or math.isnan(high):
            return "no interval"
        return f"{change_text(low)} to {change_text(high)}"


def delta_rows(deltas: pd.DataFrame) -> list[DeltaRow]:
    """All rows of a delta table, in its order."""
    return [
        DeltaRow(
            level=row.level,
            name=str(row.name),
            parent=row.parent if isinstance(row.parent, str) else None,
            counts=(int(row.count_reference), int(row.count_treatment)),
            totals=(int(row.total_reference), int(row.total_treatment)),
            shares=(float(row.share_reference), float(row.share_treatment)),
            change=float(row.relative_change),
            interval=(float(row.ci_low), float(row.ci_high)),
            p_value=float(row.p_value),
            q_value=float(row.q_value),
            p_seed_null=float(getattr(row, "p_seed_null", math.nan)),
            per_run=_per_run(row),
            runs_agree=float(getattr(row, "runs_agree", math.nan)),
            holds_against_median=_text(getattr(row, "holds_against_median", "")),
        )
        for row in rows_of(deltas)
    ]


def _per_run(row: Any) -> tuple[str, str] | None:
    if not hasattr(row, "counts_reference"):
        return None
    return row.counts_treatment, row.counts_reference


def _text(value: object) -> str:
    """The text of a cell; empty for NaN, an empty cell of a CSV file."""
    return value if isinstance(value, str) else ""


def ordered(rows: list[DeltaRow]) -> list[DeltaRow]:
    """Classes by falling change, each followed by its categories; the rest last."""

    def size(row: DeltaRow) -> tuple[float, str]:
        return (math.inf if math.isnan(row.value) else -row.value, row.name)

    arranged: list[DeltaRow] = []
    for group in sorted((row for row in rows if row.is_class), key=size):
        inside = [row for row in rows if not row.is_class and row.parent == group.name]
        arranged += [group, *sorted(inside, key=size)]
    return arranged + sorted((row for row in rows if row not in arranged), key=size)


@dataclass(frozen=True)
class SignStability:
    """Signs of one category's change over runs.

    `more` and `less` count the runs with a change of that sign, `clear_more` and `clear_less` those whose 95
    % interval excludes no change; `unknown` counts runs without a sign: no latent in either pair, an
    unchanged share, or no such category.
    """

    more: int
    less: int
    clear_more: int
    clear_less: int
    unknown: int

    @property
    def n_signed(self) -> int:
        """Runs with a sign."""
        return self.more + self.less

    @property
    def share(self) -> float:
        """Share of the signed runs with the more frequent sign, one half to 1; NaN without any."""
        return max(self.more, self.less) / self.n_signed if self.n_signed else math.nan

    @property
    def sign(self) -> str:
        """The more frequent sign in words."""
        if not self.n_signed:
            return "unknown"
        if self.more == self.less:
            return "divided"
        return "more" if self.more > self.less else "less"

    def chance(self) -> float:
        """Probability that as many fair coins agree at least as well: the two-sided sign test.

        min(1, 2 P(X >= max(more, less))), X ~ Binomial(more + less, 1/2) (Dixon and Mood 1946, JASA 41:557).
        For independent runs; runs that share models or data agree more easily.
        """
        n, most = self.n_signed, max(self.more, self.less)
        if not n:
            return math.nan
        tail = sum(math.comb(n, k) for k in range(most, n + 1)) / 2**n
        return min(1.0, 2 * tail)


def sign_stability(rows: Sequence[DeltaRow | None]) -> SignStability:
    """Count the signs of one category over runs; None stands for a run without that category."""
    known = [row for row in rows if row is not None and row.value == row.value and row.value != 0]
    more = [row for row in known if row.value > 0]
    less = [row for row in known if row.value < 0]
    return SignStability(
        more=len(more),
        less=len(less),
        clear_more=sum(not row.holds_zero for row in more),
        clear_less=sum(not row.holds_zero for row in less),
        unknown=len(rows) - len(known),
    )
