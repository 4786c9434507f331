"""The power line: the smallest change that so few latents can show."""

from __future__ import annotations

import numpy as np
from scipy import stats

SHARES = (0.2, 0.05)


def smallest_visible_ratio(
    share: float,
    *,
    n_reference: int,
    n_treatment: int,
    power: float = 0.8,
    level: float = 0.95,
    spread: tuple[float, float] | None = None,
) -> float:
    """Ratio of shares that a two-sided test at `level` finds with probability `power`; NaN for an empty side.

    log ratio = (z_level + z_power) * sqrt((1 - share)/share * (1/n_reference + 1/n_treatment)): the delta
    method's standard error with both shares at `share`, one test, no correction for many. With a `spread`
    over seeds (phi, degrees of freedom) the variance is phi times as large and Student's t takes z's place.
    """
    if min(n_reference, n_treatment) == 0:
        return float("nan")
    error = np.sqrt((1 - share) / share * (1 / n_reference + 1 / n_treatment))
    if spread is None:
        return float(np.exp((stats.norm.ppf((1 + level) / 2) + stats.norm.ppf(power)) * error))
    phi, df = spread
    return float(np.exp((stats.t.ppf((1 + level) / 2, df) + stats.t.ppf(power, df)) * np.sqrt(phi) * error))


def power_line(
    *, n_reference: int, n_treatment: int, spread: tuple[float, float] | None = None
) -> dict[str, object]:
    """The sentence for under the chart, and its figures per share."""
    if min(n_reference, n_treatment) == 0:
        sentence = (
            f"with {n_treatment} against {n_reference} labelled exclusive latents no change can be measured"
        )
        return {"sentence": sentence, "ratios": {str(share): None for share in SHARES}}
    ratios = {
        share: smallest_visible_ratio(share, n_reference=n_reference, n_treatment=n_treatment, spread=spread)
        for share in SHARES
    }
    parts = " and ".join(f"x{ratio:.1f} for a {share:.0%} share" for share, ratio in ratios.items())
    sentence = (
        f"with {n_treatment} against {n_reference} latents the smallest change visible "
        f"at 80 % power is {parts} (one test; correcting for many needs more)"
    )
    return {"sentence": sentence, "ratios": {str(share): round(ratio, 4) for share, ratio in ratios.items()}}
