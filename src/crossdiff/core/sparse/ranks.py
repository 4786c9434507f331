"""The sparse step of a distributed run: batch top-k over the global batch."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from crossdiff.core.axes import ActiveValues
from crossdiff.core.codes import SparseCode
from crossdiff.core.collective import largest_over_ranks, n_ranks
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dense import StepPlan
from crossdiff.core.largest import largest_of_all
from crossdiff.core.sparse.step import BatchTopKStep

SHARE = 1.25
"""A rank first looks for this many times its equal share of the kept codes."""


class GlobalBatchTopKStep(BatchTopKStep):
    """`BatchTopKStep` whose kept codes are the k * n_tokens largest over all ranks.

    Gradients are those of this rank's tokens: their mean over ranks is the global batch's.
    """

    def _select(
        self, crosscoder: Crosscoder, x: Tensor, norm: Tensor, plan: StepPlan
    ) -> tuple[SparseCode, float]:
        most = min(plan.k * n_ranks(), crosscoder.n_latents)
        k = min(most, math.ceil(SHARE * plan.k))
        while True:
            code, _ = super()._select(crosscoder, x, norm, replace(plan, k=k))
            scaled, limit = code.value * norm[code.latent], k * x.shape[0]
            keep, smallest = largest_of_all(scaled, count=plan.k * x.shape[0] * n_ranks(), limit=limit)
            hides = len(code) == limit and k < most and bool((scaled >= smallest).all())
            if not bool(largest_over_ranks(torch.tensor(int(hides), device=x.device))):
                return _kept(code, scaled, keep)
            k = min(most, 2 * k)


def _kept(code: SparseCode, scaled: ActiveValues, keep: Tensor) -> tuple[SparseCode, float]:
    index = keep.nonzero().squeeze(1)
    kept = replace(code, token=code.token[index], latent=code.latent[index], value=code.value[index])
    return kept, float(scaled[index].min()) if len(index) else math.nan
