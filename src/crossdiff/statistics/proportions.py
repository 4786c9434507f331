"""Rates of behaviours: the interval of a share, and whether a share rises with a dose."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Z = 1.959964
"""Two-sided 95 % point of the normal distribution."""
Stratum = tuple[Sequence[float], Sequence[int], Sequence[int]]
"""Doses, answers that show the behaviour, answers."""


def wilson(shown: int, n: int) -> tuple[float, float]:
    """Wilson's score interval of a share, 95 % (Wilson 1927, JASA 22:209); NaN of nothing."""
    if n == 0:
        return float("nan"), float("nan")
    share, scale = shown / n, 1 + Z * Z / n
    middle = share + Z * Z / (2 * n)
    spread = Z * ((share * (1 - share) + Z * Z / (4 * n)) / n) ** 0.5
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def trend(strata: Sequence[Stratum]) -> float:
    """z of the Cochran-Armitage test for a trend of shares over doses, positive where shares rise.

    Per stratum with pooled share p of N answers: `T = sum d_i (x_i - n_i p)` and `V = p (1 - p) (sum n_i
    d_i^2 - (sum n_i d_i)^2 / N)` (Armitage 1955, Biometrics 11:375); `z = sum T / sqrt(sum V)`, as Mantel
    (1963, JASA 58:690) sums strata. NaN where all answers of every stratum show the behaviour, or none: no
    trend can be seen there.
    """
    total = variance = 0.0
    for doses, shown, n in strata:
        d, x, m = (np.array(values, dtype=float) for values in (doses, shown, n))
        if m.sum() == 0:
            continue
        p = x.sum() / m.sum()
        total += float((d * (x - m * p)).sum())
        variance += float(p * (1 - p) * ((m * d * d).sum() - (m * d).sum() ** 2 / m.sum()))
    return total / variance**0.5 if variance > 1e-12 else float("nan")
