"""Intervals of a share and of the ratio of two shares; trend of a share over doses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


def log_ratio(
    treatment: NDArray, reference: NDArray, *, n_treatment: int, n_reference: int
) -> NDArray[np.float64]:
    """log of share_treatment / share_reference with 1/2 added to every count and to every total."""
    return (
        np.log(treatment + 0.5)
        - np.log(reference + 0.5)
        - np.log(n_treatment + 0.5)
        + np.log(n_reference + 0.5)
    )


def bootstrap_interval(draws: NDArray[np.float64], *, level: float = 0.95) -> NDArray[np.float64]:
    """Percentile interval of drawn log ratios [draw row], as relative change: [2 row]."""
    tail = 50 * (1 - level)
    return np.expm1(np.percentile(draws, [tail, 100 - tail], axis=0))


@lru_cache(maxsize=4096)  # as in significance.fisher_p_value
def score_interval(
    treatment: int, n_treatment: int, reference: int, n_reference: int, *, level: float = 0.95
) -> tuple[float, float]:
    """Koopman's score interval for share_treatment / share_reference (Koopman 1984, Biometrics 40:513).

    The ratios that the chi-square score test does not reject; (0, inf) where both counts are 0.
    """
    from scipy import stats

    if treatment == 0 and reference == 0:
        return 0.0, float("inf")
    critical = float(stats.chi2.ppf(level, 1))

    def excess(log_theta: float) -> float:
        return _score(np.exp(log_theta), treatment, n_treatment, reference, n_reference) - critical

    centre = float(np.log((treatment or 0.5) / n_treatment) - np.log((reference or 0.5) / n_reference))
    while excess(centre) > 0:  # only with a zero count: its best ratio is 0 or infinity
        centre += 1.0 if reference == 0 else -1.0
    low = 0.0 if treatment == 0 else np.exp(_edge(excess, centre, step=-1.0))
    high = float("inf") if reference == 0 else np.exp(_edge(excess, centre, step=1.0))
    return float(low), float(high)


def _edge(excess: Callable[[float], float], centre: float, *, step: float) -> float:
    """Zero of `excess`, searched from inside the interval in the direction of `step`."""
    from scipy import optimize

    far = centre + step
    while excess(far) < 0:
        far += step
    root = optimize.brentq(excess, far - step, far, xtol=1e-10)
    return float(root)  # type: ignore[arg-type]


def _score(theta: float, x: int, m: int, y: int, n: int) -> float:
    """Pearson's chi-square of x of m and y of n against shares fitted under share_x = theta * share_y."""
    total = theta * (m + y) + x + n
    root = np.sqrt(max(total**2 - 4 * theta * (m + n) * (x + y), 0.0))
    fitted = (total - root) / (2 * (m + n))
    return _pearson(x, m, fitted) + _pearson(y, n, fitted / theta)


def _pearson(count: int, size: int, share: float) -> float:
    variance = size * share * (1 - share)
    distance = (count - size * share) ** 2
    if variance <= 1e-12:
        return 0.0 if distance < 1e-9 else float("inf")
    return distance / variance


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


def wilson_rate(count: int, total: int, *, per: int = 1) -> dict[str, float] | None:
    """`count` of `total`, times `per`, with `low` and `high` of Wilson's interval; None of nothing."""
    if not total:
        return None
    low, high = wilson(count, total)
    return {"value": per * count / total, "low": per * low, "high": per * high}


def trend(strata: Sequence[Stratum]) -> float:
    """z of the Cochran-Armitage test for a trend of shares over doses, positive where shares rise.

    Per stratum with pooled share p of N answers: `T = sum d_i (x_i - n_i p)` and `V = p (1 - p) (sum n_i
    d_i^2 - (sum n_i d_i)^2 / N)` (Armitage 1955, Biometrics 11:375); `z = sum T / sqrt(sum V)`, as Mantel
    (1963, JASA 58:690) sums strata. NaN where all answers of every stratum show the behaviour, or none.
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
