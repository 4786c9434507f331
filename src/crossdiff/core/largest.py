"""The `count` largest of many values, exactly `count` of them: of equal values the lowest index wins."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crossdiff.core.axes import Code
from crossdiff.core.collective import gather_over_ranks, own_rank


def largest(scaled: Code, *, count: int) -> Bool[Tensor, "token latent"]:
    """Mask of exactly `count` largest entries of the flattened batch; ties go to the lowest flat index."""
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
    """Mask of exactly k largest entries of every token; ties go to the lowest latent."""
    if k >= scaled.shape[1]:
        return torch.ones_like(scaled, dtype=torch.bool)
    kth = scaled.topk(k, dim=1).values[:, -1:]
    above = scaled > kth
    tied = scaled == kth
    missing = k - above.sum(dim=1, keepdim=True)
    return above | (tied & (tied.cumsum(dim=1) <= missing))


def largest_of(values: Float[Tensor, " entry"], count: int) -> Bool[Tensor, " entry"]:
    """Mask of exactly `count` largest of a list; ties go to the lowest index."""
    kth = values.topk(count, sorted=False).values.min()
    mask = values > kth
    tied = (values == kth).nonzero().squeeze(1)
    mask[tied[: count - int(mask.sum())]] = True
    return mask


def largest_of_all(
    values: Float[Tensor, " entry"], *, count: int, limit: int
) -> tuple[Bool[Tensor, " entry"], Tensor]:
    """Mask of this rank's entries among the `count` largest of all ranks, and the smallest of those.

    Of equal values the lowest rank's, then the first in the list win. `limit` is the same on all ranks and at
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
    found = (scaled.reshape(-1) > guess).nonzero().squeeze(1)
    return found if count <= found.numel() <= scaled.numel() // 4 else None
