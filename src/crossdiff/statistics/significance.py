"""p-values for the change of a share: permutation max-T over classes, Fisher and BH over categories."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Counts = NDArray[np.int64]


def max_t_p_values(
    reference: Counts,
    treatment: Counts,
    *,
    totals: tuple[int, int],
    draws: int,
    generator: np.random.Generator,
) -> NDArray[np.float64]:
    """Family-wise adjusted p per row of mutually exclusive counts [row] out of `totals` latents.

    The pair label of the latents is permuted (with fixed counts: a multivariate hypergeometric draw); T is
    the difference of shares over its pooled standard error. p = (1 + #{max T* >= T}) / (1 + draws)
    (Westfall & Young 1993, single step). Equal maxima are ordered by the sum of T squared, so that the
    smallest p is close to uniform under no difference although counts are coarse.
    """
    n_reference, n_treatment = totals
    pooled = reference + treatment
    if min(totals) == 0 or len(pooled) == 0:
        return np.full(len(pooled), np.nan)
    with_rest = np.append(pooled, n_reference + n_treatment - pooled.sum())
    permuted = generator.multivariate_hypergeometric(with_rest, n_treatment, size=draws)[:, :-1]
    size = standardised_differences(treatment[None], pooled, totals)[0]
    drawn = standardised_differences(permuted, pooled, totals)
    largest, spread = drawn.max(1), (drawn**2).sum(1)
    equal = np.isclose(largest[:, None], size)
    beyond = (largest[:, None] > size) & ~equal
    at_least_as_wide = (spread >= (size**2).sum() - 1e-9)[:, None]
    exceeds = beyond | (equal & np.where(np.isclose(size, size.max()), at_least_as_wide, True))
    return np.where(pooled > 0, (1 + exceeds.sum(0)) / (1 + draws), np.nan)


def standardised_differences(counts: Counts, pooled: Counts, totals: tuple[int, int]) -> NDArray[np.float64]:
    """|count - expected| over the hypergeometric standard deviation; 0 where nothing can vary."""
    total, n_treatment = sum(totals), totals[1]
    share = pooled / total
    variance = n_treatment * share * (1 - share) * totals[0] / max(total - 1, 1)
    distance = np.abs(counts - n_treatment * share)
    return np.where(variance > 0, distance / np.sqrt(np.where(variance > 0, variance, 1.0)), 0.0)


def fisher_p_value(reference: int, n_reference: int, treatment: int, n_treatment: int) -> float:
    """Two-sided Fisher exact p; NaN where one side has no latents or no latent has the category."""
    if min(n_reference, n_treatment) == 0 or reference + treatment == 0:
        return float("nan")
    table = [[treatment, n_treatment - treatment], [reference, n_reference - reference]]
    return float(stats.fisher_exact(table).pvalue)  # type: ignore[attr-defined]


def benjamini_hochberg(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """q-values of the p-values that are not NaN (Benjamini & Hochberg 1995, step-up)."""
    q_values = np.full(len(p_values), np.nan)
    known = np.flatnonzero(~np.isnan(p_values))
    if len(known):
        q_values[known] = stats.false_discovery_control(p_values[known])
    return q_values
