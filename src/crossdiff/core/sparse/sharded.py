"""The sparse step of a dictionary whose latents are dealt to several ranks, each with its own rows.

All ranks of a row of the table in `core.collective` see the same tokens. A rank holds encoder, decoder and
biases of its block of latents (and their moments), and the decoder bias, which is the same on all. Nothing
but scaled codes, partial reconstructions and one square per rank is exchanged; no gradient is.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from crossdiff.core.codes import Activations, SparseCode
from crossdiff.core.collective import (
    gather_over_ranks,
    largest_over_ranks,
    n_ranks,
    own_rank,
    sum_over_ranks,
)
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dense import StepPlan, StepResult
from crossdiff.core.shard import CrosscoderShard, padded
from crossdiff.core.sparse.adam import gradient_norm
from crossdiff.core.sparse.auxiliary import largest_dead, revived
from crossdiff.core.sparse.kernels import Backward, Kernels, RowGradients, part
from crossdiff.core.sparse.step import SHARE, BatchTopKStep, add_rows, dead_rows, kept_entries


class ShardedBatchTopKStep(BatchTopKStep):
    """`BatchTopKStep` on this rank's block of latents: the kept codes are the largest over all ranks.

    Of equal scaled codes those with the lowest token, then the lowest number of the latent in the whole
    dictionary are kept. Gradients are those of this rank's tokens, as in `GlobalBatchTopKStep`.
    """

    def __init__(self, *, chunk: int = 1024, **how: Any) -> None:
        """`chunk` is a quarter of the usual: what a pass holds for a while is then as small as the rest."""
        super().__init__(chunk=chunk, **how)

    def gradients(self, crosscoder: Crosscoder, xn: Activations, plan: StepPlan) -> StepResult:
        """As for one device; `fired` is about this rank's latents, everything else about all of them."""
        result = super().gradients(crosscoder, xn, plan)
        n_active = torch.tensor(result.n_active, device=xn.device)
        return replace(result, n_active=int(sum_over_ranks(n_active, "shards")))

    def _select(
        self, crosscoder: Crosscoder, x: Tensor, norm: Tensor, plan: StepPlan
    ) -> tuple[SparseCode, float]:
        assert isinstance(crosscoder, CrosscoderShard)
        shard, first_token = crosscoder.shard, own_rank() * x.shape[0]
        most = min(plan.k * n_ranks(), crosscoder.n_latents)
        k = min(most, math.ceil(SHARE * plan.k / shard.n_shards))
        while True:
            code, _ = super()._select(crosscoder, x, norm, replace(plan, k=k))
            scaled, limit = code.value * norm[code.latent], k * x.shape[0]
            index = (first_token + code.token) * shard.n_latents + shard.rows.start + code.latent
            keep, smallest = largest_with_index(
                scaled, index, count=plan.k * x.shape[0] * n_ranks(), limit=limit
            )
            hides = len(code) == limit and k < most and bool((scaled >= smallest).all())
            if not bool(largest_over_ranks(torch.tensor(int(hides), device=x.device), "all")):
                kept, least = kept_entries(code, scaled, keep)
                return kept, _least_over_ranks(least, x)
            k = min(most, 2 * k)

    def _revive(
        self,
        crosscoder: Crosscoder,
        batch: Backward,
        plan: StepPlan,
        rows: RowGradients,
        terms: dict[str, Tensor],
    ) -> None:
        """AuxK over the dead latents of all ranks; a rank that has none takes part in the sums."""
        if not plan.auxiliary:
            return
        own = torch.tensor([plan.dead.numel()], device=batch.x.device)
        n_dead = torch.cat(gather_over_ranks(own, "shards")).tolist()
        if not any(n_dead):
            return
        with part("auxiliary"):
            work, norm = self._sparse_kernels(batch.x), crosscoder.code_norm()[plan.dead]
            weights = dead_rows(crosscoder, plan.dead)
            code = _dead_code(batch.x, weights, norm, k=plan.auxiliary_k, n_dead=n_dead, work=work)
            terms["auxiliary"], dead = revived(
                batch, weights, code, weight=plan.auxiliary, kernels=work, summed=crosscoder.summed
            )
            if plan.dead.numel():
                add_rows(rows, dead)


def _dead_code(
    x: Float[Tensor, "token width"],
    weights: RowGradients,
    norm: Float[Tensor, " dead"],
    *,
    k: int,
    n_dead: list[int],
    work: Kernels,
) -> SparseCode:
    """This rank's entries among the k largest per token of the dead latents of all ranks."""
    if weights.latent.numel():
        code = largest_dead(x, weights, norm, k=k, kernels=work)
    else:
        none = weights.latent.new_zeros(0)
        code = SparseCode(none, none, x.new_zeros(0), x.shape[0], 0)
    if sum(n_dead) <= k:
        return code
    scaled, counts = code.value * norm[code.latent], torch.bincount(code.token, minlength=len(x))
    place = torch.arange(len(code), device=x.device) - (counts.cumsum(0) - counts)[code.token]
    table = x.new_zeros(len(x), min(k, max(n_dead)))
    table[code.token, place] = scaled
    everyone = torch.cat(gather_over_ranks(table, "shards"), dim=1)
    bound = everyone.topk(k, dim=1, sorted=False).values.min(dim=1).values
    kept = (scaled >= bound[code.token]).nonzero().squeeze(1)
    return replace(code, token=code.token[kept], latent=code.latent[kept], value=code.value[kept])


def largest_with_index(
    values: Float[Tensor, " entry"], index: Int[Tensor, " entry"], *, count: int, limit: int
) -> tuple[Bool[Tensor, " entry"], Tensor]:
    """Mask of this rank's entries among the `count` largest of all ranks, and the smallest of those.

    Of equal values those with the lowest `index` (the flat index in the whole code matrix) win. `limit` is
    the same on all ranks and at least every rank's number of entries.
    """
    everyone = torch.cat(gather_over_ranks(padded(values, limit, -torch.inf), "all"))
    smallest = everyone.topk(min(count, everyone.numel()), sorted=False).values.min()
    mask, tied = values > smallest, values == smallest
    free = count - int((everyone > smallest).sum())
    if int((everyone == smallest).sum()) <= free or not bool(smallest.isfinite()):
        return mask | (tied & smallest.isfinite()), smallest
    last = torch.iinfo(torch.int64).max
    indices = torch.cat(gather_over_ranks(padded(index.where(tied, last), limit, last), "all"))
    bound = indices.sort().values[free - 1]
    return mask | (tied & (index <= bound)), smallest


def norm_over_shards(crosscoder: Crosscoder) -> float:
    """Norm over the gradients of all blocks' rows and, once, of the decoder bias that all have."""
    own = [crosscoder.encoder, crosscoder.encoder_bias, crosscoder.decoder]
    squares = torch.tensor(gradient_norm(own) ** 2, dtype=torch.float64, device=crosscoder.encoder.device)
    return math.sqrt(float(sum_over_ranks(squares, "shards")) + gradient_norm([crosscoder.decoder_bias]) ** 2)


def _least_over_ranks(least: float, like: Tensor) -> float:
    """The smallest of all ranks' numbers, NaN where none has one."""
    own = like.new_tensor(-math.inf if math.isnan(least) else -least)
    found = -float(largest_over_ranks(own, "all"))
    return math.nan if math.isinf(found) else found
