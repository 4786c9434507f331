"""Adam that takes dense or row-sparse gradients and equals dense Adam in both cases."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.adam import adam


class SparseRowAdam(torch.optim.Optimizer):
    """Adam (no weight decay) with the gradient clipping folded in.

    A gradient may be an ordinary tensor or a coalesced sparse COO tensor of whole rows; rows that are absent
    have gradient 0: their moments decay and their weights move, as in dense Adam. `max_norm` clips the norm
    over all gradients, as `torch.nn.utils.clip_grad_norm_` does; the norm before clipping is kept in
    `last_norm`. Where a gradient is scaled in place, `.grad` holds the clipped one afterwards.
    State: `step`, `exp_avg`, `exp_avg_sq` per parameter, as in torch.optim.Adam.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        max_norm: float | None = None,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "max_norm": max_norm})
        self.last_norm = float("nan")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update of every parameter that has a gradient; `closure` (Lightning's) is called first."""
        if closure is not None:
            with torch.enable_grad():
                closure()
        parameters = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        self.last_norm = gradient_norm(parameters)
        for group in self.param_groups:
            limit = group["max_norm"]
            clip = 1.0 if limit is None else min(1.0, limit / (self.last_norm + 1e-6))
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group, clip)

    def _update(self, parameter: Tensor, group: dict, clip: float) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        gradient = cast(Tensor, parameter.grad)
        gradient = gradient.to_dense() if gradient.is_sparse else gradient
        if clip < 1:
            gradient.mul_(clip)
        adam(
            [parameter], [gradient], [state["exp_avg"]], [state["exp_avg_sq"]], [], [state["step"]],
            lr=group["lr"], beta1=group["betas"][0], beta2=group["betas"][1], eps=group["eps"],
            weight_decay=0.0, amsgrad=False, maximize=False, fused=True,
        )  # fmt: skip


def gradient_norm(parameters: Iterable[Tensor]) -> float:
    """Euclidean norm over the gradients of all parameters, sparse ones by their rows."""
    total = 0.0
    for parameter in parameters:
        gradient = cast(Tensor, parameter.grad)
        values = gradient.coalesce().values() if gradient.is_sparse else gradient
        total += float(values.norm()) ** 2
    return total**0.5
