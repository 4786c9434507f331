"""The optimizers that a run can have, and the clipping of gradients by their norm."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.shard import CrosscoderShard
from crossdiff.core.sparse import SparseRowAdam
from crossdiff.core.sparse.sharded import norm_over_shards
from crossdiff.training.settings import TrainingSettings


class RowAdam(SparseRowAdam):
    """`SparseRowAdam` as Lightning calls it: with a closure, which does nothing in manual optimisation."""

    def step(self, closure: Callable[[], Any] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update of every parameter that has a gradient."""
        if closure is not None:
            closure()
        super().step()


def build_optimizer(
    crosscoder: Crosscoder, training: TrainingSettings, *, sparse: bool
) -> torch.optim.Optimizer:
    """The optimizer of `training.optimizer`; `sparse` when gradients come from the sparse step.

    adam is torch's fused Adam, or for the sparse step one of equal updates that clips by itself.
    """
    parameters, rate, betas = list(crosscoder.parameters()), training.learning_rate, training.betas
    norm = partial(norm_over_shards, crosscoder) if isinstance(crosscoder, CrosscoderShard) else None
    rows = partial(RowAdam, parameters, lr=rate, betas=betas, max_norm=training.clip_norm, norm=norm)
    match training.optimizer:
        case "adam_8bit":
            return _eight_bit(parameters, rate, betas)
        case "lazy_adam" if not sparse:
            raise ValueError(
                "training.optimizer=lazy_adam needs the sparse step of batch_topk; choose optimizer=adam"
            )
        case "lazy_adam":
            return rows(inactive="skip")
        case "adam":
            if sparse:
                return rows()
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
