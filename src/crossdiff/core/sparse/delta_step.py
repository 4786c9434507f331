"""The sparse training step of a Delta-Crosscoder: two partitions of latents, selected and decoded apart."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from crossdiff.core.codes import Activations, SparseCode
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.delta import Partition, difference, partitions
from crossdiff.core.dense import LossForm, StepPlan, StepResult
from crossdiff.core.dictionary import n_delta
from crossdiff.core.sparse.backends import suited
from crossdiff.core.sparse.batch_topk import Encoder, Search, select
from crossdiff.core.sparse.kernels import Backward, ByLatent, RowGradients, Scratch, part
from crossdiff.core.sparse.step import BatchTopKStep, reconstruction


class DeltaTopKStep(BatchTopKStep):
    """The gradients of `core.dense.gradients` for BatchTopK with `architecture=delta`, on one device.

    The delta loss reads the codes of D through `W^tuned - W^base`: at these codes the gradient of the
    reconstruction has that of the decoded difference added (tuned) and taken off (base), and no other place
    of the backward pass knows of it. `cut` guesses the threshold of S, `delta_cut` that of D.
    """

    delta_cut: Tensor

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.register_buffer("delta_cut", torch.zeros((), dtype=torch.float64))
        self._delta_scratch = Scratch()

    def _gradients(self, crosscoder: Crosscoder, xn: Activations, plan: StepPlan) -> StepResult:
        x, decoder = xn.flatten(1), crosscoder.decoder.flatten(1)
        norm, kinds = _plain_norm(crosscoder), partitions(crosscoder.settings, k=plan.k)
        cuts, memory = (self.delta_cut, self.cut), self._memories(crosscoder)
        parts = [self._of(crosscoder, x, norm, kind, cut) for kind, cut in zip(kinds, cuts, strict=True)]
        codes, least = zip(*parts, strict=True)
        groups = [_groups(code, kind.latents) for code, kind in zip(codes, kinds, strict=True)]
        works = [suited(self._sparse_kernels(x), code) for code in codes]
        with part("decode"):
            decoded = [w.decode(c, g, decoder) for w, c, g in zip(works, codes, groups, strict=True)]
            missed = difference(xn) - difference(decoded[0].view_as(xn))
            residual = x - decoded[0] - decoded[1] - crosscoder.decoder_bias.flatten()
        squared = residual.view_as(xn).norm(dim=2).square()
        loss, gradient = reconstruction(residual.view_as(xn), squared, plan)
        delta, pull = _delta(missed, form=plan.loss, weight=crosscoder.settings.delta_weight)
        pulled = gradient + torch.stack([-pull, pull], dim=1)
        at = [Backward(x, arriving.flatten(1)) for arriving in (pulled, gradient)]
        with part("backward"):
            passes = zip(works, codes, groups, at, memory, strict=True)
            rows = _joined([w.backward(c, g, b, decoder, scratch=m) for w, c, g, b, m in passes])
        terms = {"reconstruction": loss, "delta": delta}
        self._revive(crosscoder, Backward(x, residual), plan, rows, terms)
        self._write(crosscoder, rows, gradient.sum(dim=0))
        fired = torch.zeros_like(norm, dtype=torch.bool)
        fired[torch.cat([code.latent for code in codes])] = True
        total = loss + crosscoder.settings.delta_weight * delta
        return StepResult(
            total=total + plan.auxiliary * terms["auxiliary"] if "auxiliary" in terms else total,
            terms=terms,
            fired=fired,
            n_active=sum(map(len, codes)),
            smallest_kept=norm.new_tensor(least[1]),
            squared_error=squared.sum(dim=0),
            smallest_delta=norm.new_tensor(least[0]),
        )

    def _of(
        self, crosscoder: Crosscoder, x: Tensor, norm: Tensor, own: Partition, cut: Tensor
    ) -> tuple[SparseCode, float]:
        """The k * n_tokens largest codes of a partition, numbered as latents of the whole dictionary."""
        dtype = torch.bfloat16 if self.encode == "bfloat16" and x.dtype == torch.float32 else x.dtype
        search = Search(dtype, self.chunk, self._sparse_kernels(x), self._scratch)
        encoder = Encoder(
            crosscoder.encoder.flatten(1)[own.latents],
            crosscoder.encoder_bias[own.latents],
            norm[own.latents],
        )
        found = select(x, encoder, count=own.k * x.shape[0], cut=float(cut), search=search)
        cut.fill_(found.next_cut)
        code = found.code
        latent = code.latent + own.latents.start
        return SparseCode(
            code.token, latent, code.value, code.n_tokens, crosscoder.n_latents
        ), found.threshold

    def _memories(self, crosscoder: Crosscoder) -> tuple[Scratch, Scratch]:
        free = crosscoder.encoder.grad is None and crosscoder.decoder.grad is None
        return (self._delta_scratch, self._scratch) if free else (Scratch(), Scratch())


def _plain_norm(crosscoder: Crosscoder) -> Tensor:
    """Norms by which a partition's codes are ranked among themselves: without the ratio of thresholds."""
    assert crosscoder.delta_ratio is not None
    norm = crosscoder.code_norm().clone()
    norm[: n_delta(crosscoder.settings)] *= crosscoder.delta_ratio
    return norm


def _groups(code: SparseCode, latents: slice) -> ByLatent:
    return ByLatent.of(code, latents=torch.arange(latents.start, latents.stop, device=code.latent.device))


def _delta(missed: Tensor, *, form: LossForm, weight: float) -> tuple[Float[Tensor, ""], Tensor]:
    """The delta loss of `xn^tuned - xn^base` less its decoding, and `weight` times its gradient there."""
    squared = missed.square().sum(dim=1)
    if form == "squared":
        return squared.mean(), missed * (-2 * weight / len(missed))
    norm = squared.sqrt()
    inverse = torch.where(squared > 0, -weight / (norm * len(missed)), 0)
    return norm.mean(), missed * inverse[:, None]


def _joined(parts: list[RowGradients]) -> RowGradients:
    """The rows of D, then those of S: all latents in order."""
    return RowGradients(
        *(
            torch.cat([getattr(each, name) for each in parts])
            for name in ("latent", "encoder", "encoder_bias", "decoder")
        )
    )
