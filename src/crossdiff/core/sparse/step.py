"""The sparse training step, on one device or many: an encoder product, then work on the kept entries."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from crossdiff.core.codes import Activations, ActiveValues, SparseCode
from crossdiff.core.collective import largest_over_ranks, n_ranks
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dense import StepPlan, StepResult, project_gradients_
from crossdiff.core.sparse.auxiliary import auxiliary_step
from crossdiff.core.sparse.backends import Backend, kernels, suited
from crossdiff.core.sparse.batch_topk import Encoder, Search, select
from crossdiff.core.sparse.kernels import (
    Backward,
    ByLatent,
    FusedAdam,
    Kernels,
    RowGradients,
    Scratch,
    part,
)
from crossdiff.core.sparsity import BatchTopK
from crossdiff.core.threshold import largest_of_all

Layout = Literal["auto", "dense", "rows"]


class BatchTopKStep(nn.Module):
    """The gradients of `core.dense.gradients` for BatchTopK, at little more than the encoder product.

    encode   bfloat16 computes the encoder product in bfloat16 and re-scores its candidates exactly.
    layout   dense: ordinary `.grad`s; rows: a coalesced sparse COO `.grad` of the touched latents' rows for
             `SparseRowAdam` (ordinary ones all the same where the architecture projects gradients);
             auto: what is faster on this backend.
    chunk    latents per encoder product: no [token, latent] matrix larger than [token, chunk] is held.

    A step's gradients live in memory that the next step uses again once `.grad` is None.
    The buffer `cut` guesses the next batch's threshold; it belongs into checkpoints for exact resume.
    """

    cut: Tensor

    def __init__(
        self,
        *,
        encode: Literal["float32", "bfloat16"] = "float32",
        backend: Backend = "auto",
        layout: Layout = "auto",
        chunk: int = 4096,
    ) -> None:
        super().__init__()
        self.encode, self.layout, self.chunk = encode, layout, chunk
        self.backend: Backend = backend
        self.register_buffer("cut", torch.zeros((), dtype=torch.float64))
        self._scratch = Scratch()

    @torch.no_grad()
    def gradients(self, crosscoder: Crosscoder, xn: Activations, plan: StepPlan) -> StepResult:
        """Add the gradients of one step on normalised activations to the parameters' `.grad`."""
        assert isinstance(plan.sparsity, BatchTopK), "only BatchTopK has a sparse step"
        with torch.autocast(xn.device.type, enabled=False):
            return self._gradients(crosscoder, xn, plan)

    def _gradients(self, crosscoder: Crosscoder, xn: Activations, plan: StepPlan) -> StepResult:
        x, decoder, norm = xn.flatten(1), crosscoder.decoder.flatten(1), crosscoder.code_norm()
        code, smallest = self._select(crosscoder, x, norm, plan)
        work = suited(self._sparse_kernels(x), code)
        with part("decode"):
            groups = self._groups(crosscoder, code, plan)
            x_hat = crosscoder.summed(work.decode(code, groups, decoder)).add_(
                crosscoder.decoder_bias.flatten()
            )
        residual = torch.sub(x, x_hat, out=x_hat)
        squared = residual.view_as(xn).norm(dim=2).square()
        loss, gradient = reconstruction(residual.view_as(xn), squared, plan)
        with part("backward"):
            batch = Backward(x, gradient.flatten(1))
            rows = work.backward(code, groups, batch, decoder, scratch=self._gradient_memory(crosscoder))
        terms = {"reconstruction": loss}
        self._revive(crosscoder, Backward(x, residual), plan, rows, terms)
        self._write(crosscoder, rows, gradient.sum(dim=0))
        fired = torch.zeros_like(norm, dtype=torch.bool)
        fired[code.latent] = True
        return StepResult(
            total=loss + plan.auxiliary * terms["auxiliary"] if "auxiliary" in terms else loss,
            terms=terms,
            fired=fired,
            n_active=len(code),
            smallest_kept=norm.new_tensor(smallest),
            squared_error=squared.sum(dim=0),
        )

    def _revive(
        self,
        crosscoder: Crosscoder,
        batch: Backward,
        plan: StepPlan,
        rows: RowGradients,
        terms: dict[str, Tensor],
    ) -> None:
        """Add the term AuxK of the batch's residual, and its gradients."""
        if not plan.dead.numel() or not plan.auxiliary:
            return
        with part("auxiliary"):
            work, norm = self._sparse_kernels(batch.x), crosscoder.code_norm()[plan.dead]
            terms["auxiliary"], dead = auxiliary_step(
                batch, dead_rows(crosscoder, plan.dead), norm, k=plan.auxiliary_k, weight=plan.auxiliary,
                kernels=work,
            )  # fmt: skip
            add_rows(rows, dead)

    def _select(
        self, crosscoder: Crosscoder, x: Tensor, norm: Tensor, plan: StepPlan
    ) -> tuple[SparseCode, float]:
        dtype = torch.bfloat16 if self.encode == "bfloat16" and x.dtype == torch.float32 else x.dtype
        search = Search(dtype, self.chunk, self._sparse_kernels(x), self._scratch)
        encoder = Encoder(crosscoder.encoder.flatten(1), crosscoder.encoder_bias, norm)
        selection = select(x, encoder, count=plan.k * x.shape[0], cut=float(self.cut), search=search)
        self.cut.fill_(selection.next_cut)
        return selection.code, selection.threshold

    def _sparse_kernels(self, x: Tensor) -> Kernels:
        return kernels(self.backend if x.dtype == torch.float32 else "torch", x.device.type)

    def _gradient_memory(self, crosscoder: Crosscoder) -> Scratch:
        """The last step's, unless its gradients are still there to be added to."""
        free = crosscoder.encoder.grad is None and crosscoder.decoder.grad is None
        return self._scratch if free else Scratch()

    def _rows_layout(self, crosscoder: Crosscoder) -> bool:
        if self.layout == "auto":
            rows = isinstance(self._sparse_kernels(crosscoder.encoder), FusedAdam)
        else:
            rows = self.layout == "rows"
        return rows and crosscoder.settings.architecture in ("standard", "diff_sae")

    def _groups(self, crosscoder: Crosscoder, code: SparseCode, plan: StepPlan) -> ByLatent:
        if not self._rows_layout(crosscoder):
            return ByLatent.of(code, latents=torch.arange(code.n_latents, device=code.latent.device))
        if plan.dead.numel() and plan.auxiliary:
            return ByLatent.of(code, latents=torch.cat([code.latent, plan.dead]).unique())
        return ByLatent.of(code)

    def _write(self, crosscoder: Crosscoder, rows: RowGradients, bias: Tensor) -> None:
        index = rows.latent[None] if self._rows_layout(crosscoder) else None
        for parameter, gradient in (
            (crosscoder.encoder, rows.encoder),
            (crosscoder.encoder_bias, rows.encoder_bias),
            (crosscoder.decoder, rows.decoder),
        ):
            shaped = gradient.view(-1, *parameter.shape[1:])
            if index is not None:
                shaped = torch.sparse_coo_tensor(
                    index, shaped, parameter.shape, is_coalesced=True, check_invariants=False
                )
            _accumulate(parameter, shaped)
        _accumulate(crosscoder.decoder_bias, bias)
        if index is None:
            project_gradients_(crosscoder)


def reconstruction(
    residual: Activations, squared: Float[Tensor, "token model"], plan: StepPlan
) -> tuple[Float[Tensor, ""], Activations]:
    """`dense.reconstruction_loss` and its gradient at the reconstruction; 0 where the residual is 0."""
    if plan.loss == "squared" and plan.mix:
        loss = squared.mean() + plan.mix * residual.prod(dim=1).sum(dim=1).mean()
        return loss, torch.add(residual, residual.flip(1), alpha=plan.mix) * (-2 / squared.numel())
    if plan.loss == "squared":
        return squared.mean(), residual * (-2 / squared.numel())
    norm = squared.sqrt()
    inverse = torch.where(squared > 0, -1 / (norm * squared.numel()), 0)
    return norm.mean(), residual * inverse[:, :, None]


def dead_rows(crosscoder: Crosscoder, dead: Int[Tensor, " dead"]) -> RowGradients:
    """The weights of these latents as compact matrices."""
    rows = (crosscoder.encoder.flatten(1), crosscoder.encoder_bias, crosscoder.decoder.flatten(1))
    return RowGradients(dead, *(weights[dead] for weights in rows))


def add_rows(total: RowGradients, part: RowGradients) -> None:
    """Add the rows of `part`, all of which `total` has, in place."""
    index = torch.searchsorted(total.latent, part.latent)
    total.encoder.index_add_(0, index, part.encoder)
    total.encoder_bias.index_add_(0, index, part.encoder_bias)
    total.decoder.index_add_(0, index, part.decoder)


def _accumulate(parameter: Tensor, gradient: Tensor) -> None:
    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient


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
                return kept_entries(code, scaled, keep)
            k = min(most, 2 * k)


def kept_entries(code: SparseCode, scaled: ActiveValues, keep: Tensor) -> tuple[SparseCode, float]:
    """The entries of a mask, and the smallest scaled code among them; NaN where it has none."""
    index = keep.nonzero().squeeze(1)
    kept = replace(code, token=code.token[index], latent=code.latent[index], value=code.value[index])
    return kept, float(scaled[index].min()) if len(index) else math.nan
