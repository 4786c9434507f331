"""Sums and maxima over the ranks of a distributed run; without one, over this process.

Ranks are a table of data x shards: those of one row work on the same tokens and hold other latents, those of
one column hold the same latents and work on other tokens. Unless said otherwise sums are over `data`. There
every rank holds an equal, contiguous part of the global batch, in rank order, so that the flat index of the
global batch orders ranks first, then tokens, then latents.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, distributed

Among = Literal["data", "shards", "all"]
"""Whom a sum is over: the ranks that hold the same latents, those that share the tokens, or both."""

_groups: dict[Among, distributed.ProcessGroup | None] = {}
"""This process's column and row of the table, if there is one; without one all ranks are `data`."""


def arrange(n_shards: int, *, timeout: timedelta | None = None) -> None:
    """Make the ranks of this run a table of data x `n_shards`; all ranks call it.

    Those of a row or column wait for one another up to `timeout`, by default as long as torch has it.
    """
    table = torch.arange(n_ranks("all")).view(-1, n_shards)
    lines: dict[Among, list[list[int]]] = {"data": table.T.tolist(), "shards": table.tolist()}
    _groups.clear()
    for among, ranks in lines.items():
        own = None if len(ranks) == 1 else distributed.new_subgroups_by_enumeration(ranks, timeout)[0]
        assert not isinstance(own, int)
        _groups[among] = own


def n_ranks(among: Among = "data") -> int:
    """Processes that train together; 1 outside a distributed run."""
    if not distributed.is_available() or not distributed.is_initialized():
        return 1
    if among == "shards" and not _groups:
        return 1
    return distributed.get_world_size(_group(among))


def own_rank(among: Among = "data") -> int:
    """Number of this process, from 0."""
    if n_ranks(among) == 1:
        return 0
    return distributed.get_rank(_group(among))


def own_part(tensor: Tensor) -> Tensor:
    """This rank's rows of a tensor that all ranks have whole."""
    return tensor.chunk(n_ranks())[own_rank()]


def sum_over_ranks(tensor: Tensor, among: Among = "data") -> Tensor:
    """The sum of every rank's tensor, on all ranks."""
    if n_ranks(among) == 1:
        return tensor
    total = tensor.clone()
    distributed.all_reduce(total, group=_group(among))
    return total


def mean_over_ranks(tensor: Tensor) -> Tensor:
    """The mean of every rank's tensor, on all ranks."""
    return sum_over_ranks(tensor) / n_ranks()


def largest_over_ranks(tensor: Tensor, among: Among = "data") -> Tensor:
    """The elementwise maximum over ranks, on all ranks."""
    if n_ranks(among) == 1:
        return tensor
    largest = tensor.clone()
    distributed.all_reduce(largest, distributed.ReduceOp.MAX, group=_group(among))
    return largest


def gather_over_ranks(tensor: Tensor, among: Among = "data") -> list[Tensor]:
    """Every rank's tensor, all of one shape, in rank order."""
    if n_ranks(among) == 1:
        return [tensor]
    parts = [torch.empty_like(tensor) for _ in range(n_ranks(among))]
    distributed.all_gather(parts, tensor.contiguous(), group=_group(among))
    return parts


def wait_for_all_ranks() -> None:
    """Until every rank has come here."""
    wait_for_ranks("all")


def wait_for_ranks(among: Among) -> None:
    """Until those that are among them have come here."""
    if n_ranks(among) > 1:
        distributed.barrier(group=_group(among))


def told_by_all_ranks(own: Any) -> list[Any]:
    """What every rank says (it is pickled), in rank order."""
    if n_ranks("all") == 1:
        return [own]
    told: list[Any] = [None] * n_ranks("all")
    distributed.all_gather_object(told, own)
    return told


def residual_variance(residual: Float[Tensor, "token width"]) -> Float[Tensor, ""]:
    """Mean over the global batch's tokens of the squared distance to their mean."""
    centred = residual - mean_over_ranks(residual.mean(dim=0))
    return mean_over_ranks(centred.square().sum(dim=1).mean())


def _group(among: Among) -> distributed.ProcessGroup | None:
    """None is everybody."""
    return _groups.get(among)
