"""Adam for sparse gradients and for little memory, and the learning rate over the steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.sparse import SparseRowAdam
from crossdiff.training.settings import TrainingSettings


class RowAdam(SparseRowAdam):
    """`SparseRowAdam` as Lightning calls it: with a closure, which does nothing in manual optimisation."""

    def step(self, closure: Callable[[], Any] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update of every parameter that has a gradient."""
        if closure is not None:
            closure()
        super().step()


def build(crosscoder: Crosscoder, training: TrainingSettings, *, sparse: bool) -> torch.optim.Optimizer:
    """The optimizer of `training.optimizer`; `sparse` when gradients come from the sparse step.

    adam is torch's fused Adam, or for the sparse step one of equal updates that clips by itself.
    """
    parameters, rate, betas = list(crosscoder.parameters()), training.learning_rate, training.betas
    match training.optimizer:
        case "adam_8bit":
            return _eight_bit(parameters, rate, betas)
        case "lazy_adam" if not sparse:
            raise ValueError(
                "training.optimizer=lazy_adam needs the sparse step of batch_topk; choose optimizer=adam"
            )
        case "lazy_adam":
            return RowAdam(parameters, lr=rate, betas=betas, max_norm=training.clip_norm, inactive="skip")
        case "adam":
            if sparse:
                return RowAdam(parameters, lr=rate, betas=betas, max_norm=training.clip_norm)
            return torch.optim.Adam(parameters, lr=rate, betas=betas, fused=True)


def clip_(optimizer: torch.optim.Optimizer, crosscoder: Crosscoder, *, max_norm: float) -> float:
    """Norm over all gradients before clipping; they are clipped here, or by `RowAdam` in its coming step."""
    if isinstance(optimizer, RowAdam):
        return optimizer.measure()
    return float(torch.nn.utils.clip_grad_norm_(crosscoder.parameters(), max_norm))


def _eight_bit(
    parameters: list[torch.nn.Parameter], rate: float, betas: tuple[float, float]
) -> torch.optim.Optimizer:
    """Moments in blocks of 8 bits (bitsandbytes): 2 bytes per weight instead of 8, on NVIDIA GPUs."""
    try:
        from bitsandbytes.optim import Adam8bit  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ValueError(
            "training.optimizer=adam_8bit needs the package bitsandbytes; "
            "pip install bitsandbytes, or choose optimizer=adam"
        ) from None
    return Adam8bit(parameters, lr=rate, betas=betas)


def learning_rate(settings: TrainingSettings, step: int) -> float:
    """Rate of optimizer step `step` (from 0): linear warm-up, flat, then linear or cosine decay towards 0.

    Warm-up ends at half of a run that is too short for it. Its step s of W has (s + 1) / W of the rate,
    one step ahead of trainers that have s / W and do not move at step 0.
    """
    n_steps = settings.total_steps()
    warmup = min(settings.warmup_steps, n_steps // 2)
    factor = min(1.0, (step + 1) / warmup) if warmup else 1.0
    n_decay = round(settings.decay_share * n_steps)
    left = (n_steps - step) / n_decay if n_decay else 1.0
    if left >= 1:
        return settings.learning_rate * factor
    match settings.decay:
        case "none":
            return settings.learning_rate * factor
        case "linear":
            return settings.learning_rate * factor * left
        case "cosine":
            return settings.learning_rate * factor * 0.5 * (1 - math.cos(math.pi * left))
