"""Selections of scaled codes: the largest of a batch, and the inference threshold.

Exactly `count` codes are kept; ties go to the lowest index.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crossdiff.core.codes import Activations, ActiveValues, Code
from crossdiff.core.collective import gather_over_ranks, own_rank
from crossdiff.core.crosscoder import LATENT_CHUNK, Crosscoder
from crossdiff.core.shard import largest_of_shards

POOL = 2
"""Most codes of a batch above the common threshold, in multiples of its share."""


@dataclass
class RunningThreshold:
    """Bias-corrected exponential average of the smallest positive kept scaled code of each batch.

    The value is `average / (1 - decay^n)`. Batches without kept codes are skipped.
    """

    decay: float = 0.999
    average: float = 0.0
    n: int = 0

    def add(self, smallest_kept: float) -> None:
        """Add one batch."""
        if smallest_kept == smallest_kept:
            self.average = self.decay * self.average + (1 - self.decay) * smallest_kept
            self.n += 1

    def value(self) -> float:
        """The average so far; NaN before the first batch."""
        return self.average / (1 - self.decay**self.n) if self.n else float("nan")

    def state(self) -> dict[str, Any]:
        """State for a checkpoint."""
        return {"average": self.average, "n": self.n}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore `state`."""
        self.average, self.n = state["average"], state["n"]


@torch.no_grad()
def estimate_threshold(
    crosscoder: Crosscoder, batches: Iterable[Activations], *, k: int, latents: slice = slice(None)
) -> float:
    """The k * n-th largest scaled code over all n tokens of the batches (raw units): L0 on them is k.

    Only codes of `latents` (by default all) count. A mean of thresholds per batch would miss k where
    batches differ. With fewer than k * n positive codes it is the smallest one; NaN without any.
    Memory: `POOL` * k * n numbers.
    """
    pool, n_tokens = [], 0
    for x in batches:
        pool.append(largest_scaled(crosscoder, x, count=POOL * k * x.shape[0], latents=latents))
        n_tokens += x.shape[0]
    return _smallest_of_largest(torch.cat(pool), k * n_tokens) if pool else float("nan")


@torch.no_grad()
def smallest_kept(crosscoder: Crosscoder, x: Activations, *, k: int) -> float:
    """The k * n_tokens-th largest scaled code of one batch (raw units), or the smallest positive one."""
    count = k * x.shape[0]
    return _smallest_of_largest(largest_scaled(crosscoder, x, count=count), count)


@torch.no_grad()
def largest_scaled(
    crosscoder: Crosscoder, x: Activations, *, count: int, latents: slice = slice(None)
) -> ActiveValues:
    """The `count` largest positive scaled codes of `latents` in a batch (raw units), in no order.

    Works in chunks of latents, without a [token, latent] matrix. Of a block of latents (`core.shard`) the
    answer is that over all blocks, on all their ranks.
    """
    xn, norm = crosscoder.normaliser.normalise(crosscoder.inputs(x)), crosscoder.code_norm()
    best, bound = xn.new_zeros(0), 0.0
    first, last, _ = latents.indices(crosscoder.n_latents)
    for start in range(first, last, LATENT_CHUNK):
        chunk = slice(start, min(start + LATENT_CHUNK, last))
        scaled = crosscoder.positive_code(xn, chunk) * norm[chunk]
        best = torch.cat([best, scaled[scaled > bound]])
        if best.numel() > count:
            best = best.topk(count, sorted=False).values
            bound = float(best.min())
    return largest_of_shards(crosscoder, best, count=count, limit=min(count, len(x) * (last - first)))


def _smallest_of_largest(values: ActiveValues, count: int) -> float:
    if values.numel() > count:
        values = values.topk(count, sorted=False).values
    return float(values.min()) if values.numel() else float("nan")


def largest(scaled: Code, *, count: int) -> Bool[Tensor, "token latent"]:
    """Mask of the `count` largest entries of the flattened batch; ties go to the lowest flat index."""
    flat = scaled.reshape(-1)
    if count >= flat.numel():
        return torch.ones_like(scaled, dtype=torch.bool)
    candidates = _candidates(scaled, count)
    values = flat if candidates is None else flat[candidates]
    kept = largest_of(values, count)
    mask = torch.zeros_like(flat, dtype=torch.bool)
    if candidates is None:
        mask = kept
    else:
        mask[candidates[kept]] = True
    return mask.view_as(scaled)


def largest_per_token(scaled: Code, *, k: int) -> Bool[Tensor, "token latent"]:
    """Mask of the k largest entries of every token; ties go to the lowest latent."""
    if k >= scaled.shape[1]:
        return torch.ones_like(scaled, dtype=torch.bool)
    kth = scaled.topk(k, dim=1).values[:, -1:]
    above = scaled > kth
    tied = scaled == kth
    missing = k - above.sum(dim=1, keepdim=True)
    return above | (tied & (tied.cumsum(dim=1) <= missing))


def largest_of(values: Float[Tensor, " entry"], count: int) -> Bool[Tensor, " entry"]:
    """Mask of the `count` largest of a list; ties go to the lowest index."""
    kth = values.topk(count, sorted=False).values.min()
    mask = values > kth
    tied = (values == kth).nonzero().squeeze(1)
    mask[tied[: count - int(mask.sum())]] = True
    return mask


def largest_of_all(
    values: Float[Tensor, " entry"], *, count: int, limit: int
) -> tuple[Bool[Tensor, " entry"], Tensor]:
    """Mask of this rank's entries among the `count` largest of all ranks, and the smallest of those.

    Ties go to the lowest rank, then to the first in the list. `limit` is equal on all ranks and at
    least every rank's number of entries.
    """
    padded = values.new_full((limit,), -torch.inf)
    padded[: values.numel()] = values
    everyone = torch.cat(gather_over_ranks(padded))
    smallest = everyone.topk(min(count, everyone.numel()), sorted=False).values.min()
    mask = values > smallest
    tied = (values == smallest).nonzero().squeeze(1)
    counts = torch.stack(gather_over_ranks(torch.stack([mask.sum(), values.new_tensor(tied.numel()).long()])))
    free = count - int(counts[:, 0].sum()) - int(counts[: own_rank(), 1].sum())
    mask[tied[: max(0, free)]] = True
    return mask, smallest


def _candidates(scaled: Tensor, count: int) -> Tensor | None:
    """Flat indices, in order, that surely include the `count` largest; None when guessing does not pay.

    The guess is the count-th value of every 32nd token, lowered; it is checked against the whole batch.
    """
    sample = scaled[::32].reshape(-1)
    expected = round(count * sample.numel() / scaled.numel())
    if sample.numel() < 4096 or not 64 <= expected <= sample.numel() // 8:
        return None
    guess = 0.8 * sample.topk(expected, sorted=False).values.min()
    above = (scaled.reshape(-1) > guess).nonzero().squeeze(1)
    return above if count <= above.numel() <= scaled.numel() // 4 else None
