"""Sums and maxima over all ranks of a distributed run; without one, over this process.

Every rank has an equal, contiguous part of the global batch, in rank order, so that the flat index of the
global batch orders ranks first, then tokens, then latents.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, distributed


def n_ranks() -> int:
    """Processes that train together; 1 outside a distributed run."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def own_rank() -> int:
    """Number of this process, from 0."""
    return distributed.get_rank() if n_ranks() > 1 else 0


def own_part(tensor: Tensor) -> Tensor:
    """This rank's rows of a tensor that all ranks have whole."""
    return tensor.chunk(n_ranks())[own_rank()]


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The sum of every rank's tensor, on all ranks."""
    if n_ranks() == 1:
        return tensor
    total = tensor.clone()
    distributed.all_reduce(total)
    return total


def mean_over_ranks(tensor: Tensor) -> Tensor:
    """The mean of every rank's tensor, on all ranks."""
    return sum_over_ranks(tensor) / n_ranks()


def largest_over_ranks(tensor: Tensor) -> Tensor:
    """The elementwise maximum over ranks, on all ranks."""
    if n_ranks() == 1:
        return tensor
    largest = tensor.clone()
    distributed.all_reduce(largest, distributed.ReduceOp.MAX)
    return largest


def gather_over_ranks(tensor: Tensor) -> list[Tensor]:
    """Every rank's tensor, all of one shape, in rank order."""
    if n_ranks() == 1:
        return [tensor]
    parts = [torch.empty_like(tensor) for _ in range(n_ranks())]
    distributed.all_gather(parts, tensor.contiguous())
    return parts


def residual_variance(residual: Float[Tensor, "token width"]) -> Float[Tensor, ""]:
    """Mean over the global batch's tokens of the squared distance to their mean."""
    centred = residual - mean_over_ranks(residual.mean(dim=0))
    return mean_over_ranks(centred.square().sum(dim=1).mean())
