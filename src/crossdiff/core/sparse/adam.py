"""Adam that takes dense or row-sparse gradients and equals dense Adam in both cases."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.optim.adam import adam

from crossdiff.core.sparse.backends import Backend, kernels
from crossdiff.core.sparse.kernels import AdamFactors, FusedAdam, part


class SparseRowAdam(torch.optim.Optimizer):
    """Adam (no weight decay) with the gradient clipping folded in.

    A gradient may be an ordinary tensor or a coalesced sparse COO tensor of whole rows. Rows that are absent
    have gradient 0: their moments decay and their weights move, as in dense Adam. `inactive="skip"` leaves
    all rows of gradient 0 alone, absent or not ("lazy Adam", which trains differently).
    `max_norm` clips the norm over all gradients as `torch.nn.utils.clip_grad_norm_` does; call `measure` to
    see that norm before `step` uses it. Afterwards `.grad` may hold the clipped gradient or the original one.
    Give `norm` where the norm is over more than these parameters (`core.sparse.sharded`).
    State: `step`, `exp_avg`, `exp_avg_sq` per parameter, as in torch.optim.Adam.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        max_norm: float | None = None,
        inactive: Literal["decay", "skip"] = "decay",
        backend: Backend = "auto",
        norm: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": 1e-8})
        self.max_norm, self.inactive = max_norm, inactive
        self.backend: Backend = backend
        self._norm: float | None = None
        self._measured = norm or self._own_norm

    def measure(self) -> float:
        """Norm over all gradients before clipping; the next `step` uses it and does not compute it again."""
        with part("gradient norm"):
            self._norm = self._measured()
        return self._norm

    def _own_norm(self) -> float:
        return gradient_norm(p for group in self.param_groups for p in group["params"])

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update of every parameter that has a gradient, after `closure`, which Lightning gives."""
        if closure is not None:
            with torch.enable_grad():
                closure()
        clip = 1.0
        if self.max_norm is not None:
            norm = self._norm if self._norm is not None else self.measure()
            clip = min(1.0, self.max_norm / (norm + 1e-6))
        self._norm = None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    with part("adam"):
                        self._update(parameter, group, clip)

    def _update(self, parameter: Tensor, group: dict[str, Any], clip: float) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        gradient, skip = cast(Tensor, parameter.grad), self.inactive == "skip"
        work = kernels(self.backend if parameter.dtype == torch.float32 else "torch", parameter.device.type)
        moments = state["exp_avg"], state["exp_avg_sq"]
        if isinstance(work, FusedAdam):
            state["step"] += 1
            rows, values = _rows(gradient, skip=skip)
            work.adam(
                (parameter, *moments), rows, values, _factors(group, float(state["step"]), clip), skip=skip
            )
        elif skip:
            rows, values = _rows(gradient, skip=True)
            parts = [whole[rows] for whole in (parameter, *moments)]
            _fused(parts, values, state["step"], group, clip)
            for whole, part in zip((parameter, *moments), parts, strict=True):
                whole[rows] = part
        else:
            dense = gradient.to_dense() if gradient.is_sparse else gradient
            _fused([parameter, *moments], dense, state["step"], group, clip)


def gradient_norm(parameters: Iterable[Tensor]) -> float:
    """Euclidean norm over the gradients of all parameters, sparse ones by their rows."""
    squares = []
    for parameter in parameters:
        if parameter.grad is not None:
            gradient = parameter.grad
            squares.append(
                float((gradient.coalesce().values() if gradient.is_sparse else gradient).norm()) ** 2
            )
    return math.sqrt(math.fsum(squares)) if all(map(math.isfinite, squares)) else math.nan


def _rows(gradient: Tensor, *, skip: bool) -> tuple[Int[Tensor, " row"], Float[Tensor, "row *rest"]]:
    """The rows that a gradient has, and their values; with `skip` without rows that are 0 throughout."""
    if gradient.is_sparse:
        gradient = gradient.coalesce()
        rows, values = gradient.indices()[0], gradient.values()
    else:
        rows, values = torch.arange(gradient.shape[0], device=gradient.device), gradient
    if not skip:
        return rows, values
    some = torch.linalg.vector_norm(values[:, None].flatten(1), ord=math.inf, dim=1) != 0
    return (rows, values) if bool(some.all()) else (rows[some], values[some])


def _factors(group: dict[str, Any], step: float, clip: float) -> AdamFactors:
    beta1, beta2 = group["betas"]
    rate, root = group["lr"] / (1 - beta1**step), math.sqrt(1 - beta2**step)
    return AdamFactors(clip, beta1, beta2, rate, root, group["eps"])


def _fused(tensors: list[Tensor], gradient: Tensor, step: Tensor, group: dict[str, Any], clip: float) -> None:
    """PyTorch's fused Adam on (parameter, first moment, second moment), in place."""
    parameter, mean, square = tensors
    if clip < 1:
        gradient.mul_(clip)
    count = step.to(parameter.device)  # the fused kernel wants it there, a state keeps it where it was
    adam(
        [parameter], [gradient], [mean], [square], [], [count],
        lr=group["lr"], beta1=group["betas"][0], beta2=group["betas"][1], eps=group["eps"],
        weight_decay=0.0, amsgrad=False, maximize=False, fused=True,
    )  # fmt: skip
    step.copy_(count)
