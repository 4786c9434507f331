"""The inference threshold: the scaled code above which a latent counts as active."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from crossdiff.core.axes import Activations, ActiveValues
from crossdiff.core.crosscoder import LATENT_CHUNK, Crosscoder

POOL = 2
"""A batch may hold this many times its share of the codes above the common threshold."""


@dataclass
class RunningThreshold:
    """Bias-corrected exponential average of the smallest positive kept scaled code of each batch.

    Right from its first value on: `average / (1 - decay^n)`. Batches that kept nothing are passed over.
    """

    decay: float = 0.999
    average: float = 0.0
    n: int = 0

    def add(self, smallest_kept: float) -> None:
        """Take in one batch."""
        if smallest_kept == smallest_kept:
            self.average = self.decay * self.average + (1 - self.decay) * smallest_kept
            self.n += 1

    def value(self) -> float:
        """The average so far; NaN before the first batch."""
        return self.average / (1 - self.decay**self.n) if self.n else float("nan")

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs."""
        return {"average": self.average, "n": self.n}

    def restore(self, state: dict[str, Any]) -> None:
        """The opposite of `state`."""
        self.average, self.n = state["average"], state["n"]


@torch.no_grad()
def estimate_threshold(crosscoder: Crosscoder, batches: Iterable[Activations], *, k: int) -> float:
    """The k * n-th largest scaled code over all n tokens of the batches (raw units): L0 on them is k.

    A mean of the batches' own thresholds would miss k where batches differ. With fewer positive codes
    than k * n it is the smallest positive one; NaN without any. Memory: `POOL` * k * n numbers.
    """
    pool, n_tokens = [], 0
    for x in batches:
        pool.append(largest_scaled(crosscoder, x, count=POOL * k * x.shape[0]))
        n_tokens += x.shape[0]
    return _smallest_of_largest(torch.cat(pool), k * n_tokens) if pool else float("nan")


@torch.no_grad()
def smallest_kept(crosscoder: Crosscoder, x: Activations, *, k: int) -> float:
    """The k * n_tokens-th largest scaled code of one batch (raw units), or the smallest positive one."""
    count = k * x.shape[0]
    return _smallest_of_largest(largest_scaled(crosscoder, x, count=count), count)


@torch.no_grad()
def largest_scaled(crosscoder: Crosscoder, x: Activations, *, count: int) -> ActiveValues:
    """The `count` largest positive scaled codes of a batch (raw units), in no order.

    Latents come in chunks and only the best so far are remembered: no [token, latent] matrix is held.
    """
    xn, norm = crosscoder.normaliser.normalise(crosscoder.inputs(x)), crosscoder.code_norm()
    best, bound = xn.new_zeros(0), 0.0
    for start in range(0, crosscoder.n_latents, LATENT_CHUNK):
        chunk = slice(start, min(start + LATENT_CHUNK, crosscoder.n_latents))
        scaled = crosscoder.positive_code(xn, chunk) * norm[chunk]
        best = torch.cat([best, scaled[scaled > bound]])
        if best.numel() > count:
            best = best.topk(count, sorted=False).values
            bound = float(best.min())
    return best


def _smallest_of_largest(values: ActiveValues, count: int) -> float:
    if values.numel() > count:
        values = values.topk(count, sorted=False).values
    return float(values.min()) if values.numel() else float("nan")
