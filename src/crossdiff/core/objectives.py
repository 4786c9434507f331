"""Loss terms of crosscoder training, each a pure function."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from crossdiff.core.axes import Activations, Code, PerLatent
from crossdiff.core.collective import residual_variance

LossForm = Literal["norm", "squared"]


def reconstruction_loss(x: Activations, x_hat: Activations, *, form: LossForm) -> Float[Tensor, ""]:
    """norm: mean over tokens and models of |x - x_hat|_2 (Minder et al.); squared: of |x - x_hat|^2."""
    squared = (x - x_hat).square().sum(dim=2)
    if form == "squared":
        return squared.mean()
    positive = squared > 0
    return torch.where(positive, torch.where(positive, squared, 1).sqrt(), 0).mean()


def auxiliary_loss(
    residual: Activations, code: Float[Tensor, "token dead"], decoder: Float[Tensor, "dead model d_model"]
) -> Float[Tensor, ""]:
    """AuxK: squared error of the dead latents' decoding to the residual, over the residual's variance.

    `residual` must be detached; no decoder bias is added. 0 where the residual does not vary. The variance is
    that of the global batch, the error that of this rank's tokens.
    """
    target = residual.flatten(1)
    error = (target - code @ decoder.flatten(1)).square().sum(dim=1).mean()
    variance = residual_variance(target)
    return torch.where(variance > 0, error / variance.clamp_min(torch.finfo(variance.dtype).tiny), 0)


def auxiliary_code(
    positive: Float[Tensor, "token dead"], norm: Float[Tensor, " dead"], *, k: int
) -> Float[Tensor, "token dead"]:
    """The k dead latents per token with the largest scaled code, among latents that are all dead."""
    if k >= positive.shape[1]:
        return positive
    top = (positive.detach() * norm.detach()).topk(k, dim=1, sorted=False).indices
    return torch.zeros_like(positive).scatter(1, top, positive.gather(1, top))


def l1_penalty(code: Code, norm: PerLatent) -> Float[Tensor, ""]:
    """Mean over tokens of sum_j f_j * norm_j."""
    return (code * norm).sum(dim=1).mean()


def tanh_penalty(code: Code, norm: PerLatent, *, sharpness: float) -> Float[Tensor, ""]:
    """Mean over tokens of sum_j tanh(sharpness * f_j * norm_j) (Anthropic, Jan 2025)."""
    return (sharpness * code * norm).tanh().sum(dim=1).mean()


class Jump(torch.autograd.Function):
    """pre * [pre > gate], with the rectangular straight-through gradient for the gate's logarithm."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, pre: Tensor, log_gate: Tensor, bandwidth: float
    ) -> Tensor:
        """Gated pre-code; the gate is exp(log_gate)."""
        gate = log_gate.exp()
        ctx.save_for_backward(pre, gate)
        ctx.bandwidth = bandwidth  # pyright: ignore[reportAttributeAccessIssue]
        return torch.where(pre > gate, pre.relu(), 0)

    @staticmethod
    def backward(ctx, grad: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        """d/dpre = [pre > gate]; d/dlog_gate = -gate^2 / bandwidth * [|pre - gate| < bandwidth / 2]."""
        pre, gate = ctx.saved_tensors
        passed = grad * ((pre > gate) & (pre > 0))
        near = ((pre - gate).abs() < ctx.bandwidth / 2).to(grad.dtype)
        return passed, (-(gate**2) / ctx.bandwidth) * (near * grad).sum(dim=0), None
