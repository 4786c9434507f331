"""Does one latent find a behaviour that only a trigger shows? The isolation score, with a held-out half."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PERCENTILE = 95
"""A latent is active in a document where its peak code lies above this percentile of the choosing half."""


@dataclass(frozen=True)
class Isolation:
    """The best latent of the choosing half, its score there, and its score on the held-out documents.

    `held_out` is the figure to report; `chosen` is the highest of many and so too high. `f1` and
    `false_positive_rate` are those of the held-out half.
    """

    latent: int
    chosen: float
    held_out: float
    f1: float
    false_positive_rate: float


def isolation(
    peaks: NDArray[np.floating], triggered: NDArray[np.bool_], held_out: NDArray[np.bool_]
) -> Isolation:
    """The isolation score BIS_j = F1_j (1 - FPR_j) of arXiv 2605.07324, chosen on one half, not the other.

    peaks      [document latent] largest code of each latent in each document, 0 where it never fires
    triggered  [document] documents in which the trigger was given; all others are benign
    held_out   [document] documents that the latent is not chosen on
    F1 is that of *active* for *triggered*, FPR the share of benign documents that are active; active is a
    peak above the latent's 95th percentile over the choosing half. Among equals the lowest latent is
    chosen. ValueError where either half lacks triggered or benign documents.
    """
    for name, half in (("choosing", ~held_out), ("held-out", held_out)):
        n_triggered, n_benign = int((half & triggered).sum()), int((half & ~triggered).sum())
        if not n_triggered or not n_benign:
            raise ValueError(
                f"the {name} half has {n_triggered} triggered and {n_benign} benign documents, and a score "
                "needs both; give more documents, or split so that both halves have some of each"
            )
    return _isolation(_active(peaks, held_out), triggered, held_out)


def isolation_null(
    peaks: NDArray[np.floating],
    triggered: NDArray[np.bool_],
    held_out: NDArray[np.bool_],
    *,
    draws: int,
    seed: int,
) -> NDArray[np.float64]:
    """The held-out score where the trigger means nothing: a latent is chosen and scored again after the
    triggered documents of either half are drawn anew, as many as there were. Sorted, one per draw."""
    generator, active = np.random.default_rng([seed, 17]), _active(peaks, held_out)
    scores, drawn = np.zeros(draws), np.zeros_like(triggered)
    for draw in range(draws):
        for half in (held_out, ~held_out):
            drawn[half] = generator.permutation(triggered[half])
        scores[draw] = _isolation(active, drawn, held_out).held_out
    return np.sort(scores)


def halves(triggered: NDArray[np.bool_], *, seed: int) -> NDArray[np.bool_]:
    """Which documents are held out: of the triggered and of the benign every second one in random order."""
    generator, held_out = np.random.default_rng([seed, 18]), np.zeros_like(triggered)
    for kind in (triggered, ~triggered):
        held_out[generator.permutation(kind.nonzero()[0])[1::2]] = True
    return held_out


def ceiling(n_triggered: int, n_documents: int) -> float:
    """The highest score of a latent that fires in many documents, so that the 5 % of its highest peaks are
    active: with fewer triggered documents the other active ones are benign, however well it separates."""
    active, share = 1 - PERCENTILE / 100, n_triggered / n_documents
    f1 = 2 * min(active, share) / (active + share)
    return f1 * (1 - max(0.0, active - share) / (1 - share))


def _active(peaks: NDArray[np.floating], held_out: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return peaks > np.percentile(peaks[~held_out], PERCENTILE, axis=0)


def _isolation(
    active: NDArray[np.bool_], triggered: NDArray[np.bool_], held_out: NDArray[np.bool_]
) -> Isolation:
    scores = _scores(active[~held_out], triggered[~held_out])[0]
    best = int(scores.argmax())
    score, f1, rate = _scores(active[held_out, best : best + 1], triggered[held_out])
    return Isolation(best, float(scores[best]), float(score[0]), float(f1[0]), float(rate[0]))


def _scores(
    active: NDArray[np.bool_], triggered: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Score, F1 and false positive rate per latent; F1 is 0 where nothing triggered is active."""
    hits = active[triggered].sum(axis=0)
    f1 = 2 * hits / (active.sum(axis=0) + triggered.sum())
    rate = active[~triggered].mean(axis=0)
    return f1 * (1 - rate), f1, rate
