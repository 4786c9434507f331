"""Whether a change keeps its sign over runs, and how often fair coins would agree as well."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from crossdiff.report.figures.rows import DeltaRow


@dataclass(frozen=True)
class SignStability:
    """Signs of one category's change over runs.

    `more` and `less` count the runs with a change of that sign, `clear_more` and `clear_less` those of them
    whose 95 % interval excludes no change; `unknown` counts runs without a sign: no latent in either
    pair, an unchanged share, or a category that the run does not have.
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
        """Share of the signed runs that have the more frequent sign: one half to 1; NaN without any."""
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
        It holds for independent runs; runs that share models or data agree more easily.
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
