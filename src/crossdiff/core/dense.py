"""The dense training step and its loss terms, by autograd: the reference for the sparse step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from crossdiff.core import delta
from crossdiff.core.codes import Activations, Code, PerLatent, code_norm
from crossdiff.core.collective import residual_variance
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import n_delta, project_, project_encoder_
from crossdiff.core.sparsity import JumpReLU, LargestK, Penalised, Sparsity

LossForm = Literal["norm", "squared"]


@dataclass(frozen=True)
class StepPlan:
    """The objective of one training step.

    k and penalty (the weight of an L1 or JumpReLU term) are those of the step's schedule.
    mix is the weight of the models' inner product in the squared loss (`reconstruction_loss`).
    dead lists the latents for AuxK, sorted; empty switches AuxK off.
    """

    sparsity: Sparsity
    k: int
    penalty: float
    loss: LossForm
    auxiliary: float
    auxiliary_k: int
    dead: Int[Tensor, " dead"]
    mix: float = 0.0


@dataclass(frozen=True)
class StepResult:
    """Detached terms of one step, unweighted except `total`.

    fired: latents with a code above 0 on any token. smallest_kept: the smallest positive kept scaled code,
    NaN without any. squared_error: per model, summed over tokens, in the normalised space. smallest_delta:
    for architecture=delta that of the difference's partition, at ratio 1 (`smallest_kept` is the other's).
    """

    total: Float[Tensor, ""]
    terms: dict[str, Tensor]
    fired: Bool[Tensor, " latent"]
    n_active: int
    smallest_kept: Float[Tensor, ""]
    squared_error: Float[Tensor, " model"]
    smallest_delta: Float[Tensor, ""] | None = None


def gradients(crosscoder: Crosscoder, xn: Activations, plan: StepPlan) -> StepResult:
    """Add one step's gradients on normalised activations to the parameters' `.grad`.

    They are projected onto the architecture's subspace.
    """
    code, scaled, terms = _forward_code(crosscoder, xn, plan)
    x_hat = crosscoder.decode_normalised(code)
    terms["reconstruction"] = reconstruction_loss(xn, x_hat, form=plan.loss, mix=plan.mix)
    total = terms["reconstruction"] + plan.penalty * terms.get("sparsity", 0)
    if "revival" in terms and isinstance(plan.sparsity, JumpReLU):
        total = total + plan.sparsity.revival * terms["revival"]
    if crosscoder.delta_ratio is not None:
        terms["delta"] = delta_loss(crosscoder, xn, code, form=plan.loss)
        total = total + crosscoder.settings.delta_weight * terms["delta"]
    residual = (xn - x_hat).detach()
    if plan.dead.numel() and plan.auxiliary:
        terms["auxiliary"] = _auxiliary(crosscoder, xn, residual, plan)
        total = total + plan.auxiliary * terms["auxiliary"]
    total.backward()
    project_gradients_(crosscoder)
    active = code.detach() > 0
    least, least_delta = _smallest(crosscoder, scaled.detach(), active)
    return StepResult(
        total=total.detach(),
        terms={name: value.detach() for name, value in terms.items()},
        fired=active.any(dim=0),
        n_active=int(active.sum()),
        smallest_kept=least,
        squared_error=residual.square().sum(dim=(0, 2)),
        smallest_delta=least_delta,
    )


def _smallest(crosscoder: Crosscoder, scaled: Code, active: Tensor) -> tuple[Tensor, Tensor | None]:
    positive, place = scaled[active], active.nonzero()[:, 1]
    if crosscoder.delta_ratio is None:
        return (positive.min() if positive.numel() else positive.new_tensor(float("nan"))), None
    least, least_delta = delta.smallest(positive, place < n_delta(crosscoder.settings))
    return least, least_delta * crosscoder.delta_ratio


def project_gradients_(crosscoder: Crosscoder) -> None:
    """Project the gradients onto the architecture's subspace (the whole space for `standard`)."""
    if crosscoder.decoder.grad is not None:
        project_(crosscoder.decoder.grad, crosscoder.settings)
    if crosscoder.encoder.grad is not None:
        project_encoder_(crosscoder.encoder.grad, crosscoder.settings)


def _forward_code(
    crosscoder: Crosscoder, xn: Activations, plan: StepPlan
) -> tuple[Code, Code, dict[str, Tensor]]:
    """Code, scaled code and sparsity terms; gradients reach the norms in penalties, not in selections.

    A latent's sparsity weight divides its scaled code in a ranking and multiplies its penalty.
    """
    pre = xn.flatten(1) @ crosscoder.encoder.flatten(1).T + crosscoder.encoder_bias
    rank, norm = crosscoder.code_norm().detach(), code_norm(crosscoder.decoder, crosscoder.settings.code_norm)
    match plan.sparsity:
        case LargestK() as chooser:
            positive = pre.relu()
            scaled = positive.detach() * rank
            if crosscoder.delta_ratio is None:
                mask = chooser.kept(scaled, k=plan.k)
            else:
                mask = delta.kept(chooser, scaled, crosscoder.settings, k=plan.k)
            return torch.where(mask, positive, 0), scaled * mask, {}
        case JumpReLU() as gated:
            assert crosscoder.log_gate is not None
            code = Jump.apply(pre, crosscoder.log_gate, gated.bandwidth)
            assert isinstance(code, Tensor)
            silent = (crosscoder.log_gate.exp() - pre).relu() * norm
            if crosscoder.sparsity_weight is not None:
                silent = silent * crosscoder.sparsity_weight
            terms = {"sparsity": _priced(crosscoder, gated, code, norm), "revival": silent.sum(dim=1).mean()}
            return code, code.detach() * rank, terms
        case Penalised() as penalised:
            code = pre.relu()
            return code, code.detach() * rank, {"sparsity": _priced(crosscoder, penalised, code, norm)}


def _priced(crosscoder: Crosscoder, penalised: Penalised, code: Code, norm: PerLatent) -> Float[Tensor, ""]:
    """Cost of the code, with the sparsity weight of designated latents (Anthropic, Feb 2025: 0.1 to 0.2)."""
    weight = crosscoder.sparsity_weight
    if weight is None:
        return penalised.cost(code, norm)
    groups = [(price, weight == price) for price in weight.unique()]
    return torch.stack(
        [price * penalised.cost(code[:, members], norm[members]) for price, members in groups]
    ).sum()


def _auxiliary(crosscoder: Crosscoder, xn: Activations, residual: Activations, plan: StepPlan) -> Tensor:
    dead = plan.dead
    pre = xn.flatten(1) @ crosscoder.encoder[dead].flatten(1).T + crosscoder.encoder_bias[dead]
    code = auxiliary_code(pre.relu(), crosscoder.code_norm()[dead], k=plan.auxiliary_k)
    return auxiliary_loss(residual, code, crosscoder.decoder[dead])


def reconstruction_loss(
    x: Activations, x_hat: Activations, *, form: LossForm, mix: float = 0.0
) -> Float[Tensor, ""]:
    """norm: mean over tokens and models of |x - x_hat|_2 (Minder et al.); squared: of |x - x_hat|^2.

    mix, of a squared loss and two models: mean over tokens of (|e_b|^2 + |e_t|^2 + 2 mix <e_b, e_t>) / 2 with
    e = x - x_hat, which is (1 + mix) times the crosscoder's loss plus -mix times |e_t - e_b|^2 / 2: from the
    crosscoder (0) to the error of the difference alone (-1).
    """
    error = x - x_hat
    squared = error.square().sum(dim=2)
    if form == "squared":
        return squared.mean() + mix * error.prod(dim=1).sum(dim=1).mean() if mix else squared.mean()
    positive = squared > 0
    return torch.where(positive, torch.where(positive, squared, 1).sqrt(), 0).mean()


def delta_loss(crosscoder: Crosscoder, xn: Activations, code: Code, *, form: LossForm) -> Float[Tensor, ""]:
    """The loss of the difference's partition (`core.delta`), in the form of the reconstruction's."""
    decoded = delta.decoded_difference(code, crosscoder.decoder, crosscoder.settings)
    return reconstruction_loss(delta.difference(xn)[:, None], decoded[:, None], form=form)


def auxiliary_loss(
    residual: Activations, code: Float[Tensor, "token dead"], decoder: Float[Tensor, "dead model d_model"]
) -> Float[Tensor, ""]:
    """AuxK: squared error of the dead latents' decoding to the residual, over the residual's variance.

    `residual` must be detached; no decoder bias is added. 0 where the residual does not vary. The variance is
    of the global batch, the error of this rank's tokens.
    """
    target = residual.flatten(1)
    error = (target - code @ decoder.flatten(1)).square().sum(dim=1).mean()
    variance = residual_variance(target)
    return torch.where(variance > 0, error / variance.clamp_min(torch.finfo(variance.dtype).tiny), 0)


def auxiliary_code(
    positive: Float[Tensor, "token dead"], norm: Float[Tensor, " dead"], *, k: int
) -> Float[Tensor, "token dead"]:
    """Codes of the k dead latents per token with the largest scaled codes; the others 0."""
    if k >= positive.shape[1]:
        return positive
    top = (positive.detach() * norm.detach()).topk(k, dim=1, sorted=False).indices
    return torch.zeros_like(positive).scatter(1, top, positive.gather(1, top))


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
