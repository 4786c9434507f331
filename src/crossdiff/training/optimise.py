"""One optimizer step: gradients by the sparse or the dense path, clipped and checked; the optimizers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from crossdiff.core import dense
from crossdiff.core.codes import Activations
from crossdiff.core.collective import largest_over_ranks, mean_over_ranks, n_ranks, sum_over_ranks
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dense import StepPlan, StepResult
from crossdiff.core.shard import CrosscoderShard, n_latents_of_all
from crossdiff.core.sparse import BatchTopKStep, SparseRowAdam
from crossdiff.core.sparse.delta_step import DeltaTopKStep
from crossdiff.core.sparse.sharded import ShardedBatchTopKStep, norm_over_shards
from crossdiff.core.sparse.step import GlobalBatchTopKStep
from crossdiff.core.sparsity import BatchTopK, LargestK, Penalised, Sparsity, check_fits
from crossdiff.training.evaluation import model_names
from crossdiff.training.settings import TrainingSettings


@dataclass(frozen=True)
class LastStep:
    """What the metrics of the latest step are computed from, when they are asked for."""

    step: int
    result: StepResult
    x: Activations
    learning_rate: float
    gradient_norm: float

    def loss(self) -> float:
        """Loss over the global batch."""
        return float(self.result.total)


class Stepper:
    """Turns settings and a step number into gradients on the crosscoder's parameters."""

    def __init__(self, crosscoder: Crosscoder, sparsity: Sparsity, training: TrainingSettings) -> None:
        self.n_latents = n_latents_of_all(crosscoder)
        check_fits(sparsity, n_latents=self.n_latents, architecture=crosscoder.settings.architecture)
        training.check_models(n_models=crosscoder.n_models)
        self.crosscoder, self.sparsity, self.training = crosscoder, sparsity, training
        self.threshold_start = sparsity.threshold_start if isinstance(sparsity, LargestK) else 0
        self.auxiliary_k = training.auxiliary_k or max(1, crosscoder.d_model // 2)
        self.sparse = _sparse_step(sparsity, training, crosscoder.settings.architecture)
        steps = range(training.total_steps())
        self.learning_rates = [training.learning_rate_at(step) for step in steps]
        self.k: list[int] | None = None
        """Latents per token at every step; None for methods without k."""
        if isinstance(sparsity, LargestK):
            self.k = [sparsity.k_at(step, n_latents=self.n_latents) for step in steps]

    def optimizer(self) -> torch.optim.Optimizer:
        """That of `training.optimizer`: adam is torch's; with the sparse step ours of equal updates."""
        training, parameters = self.training, list(self.crosscoder.parameters())
        how: dict[str, Any] = {"lr": training.learning_rate, "betas": training.betas}
        if training.optimizer == "adam_8bit":
            return _eight_bit(parameters, **how)
        if self.sparse is None:
            if training.optimizer == "lazy_adam":
                raise ValueError(
                    "training.optimizer=lazy_adam needs the sparse step of batch_topk; choose optimizer=adam"
                )
            return torch.optim.Adam(parameters, **how, fused=True)
        if isinstance(self.crosscoder, CrosscoderShard):
            how["norm"] = partial(norm_over_shards, self.crosscoder)
        inactive = "skip" if training.optimizer == "lazy_adam" else "decay"
        return SparseRowAdam(parameters, **how, max_norm=training.clip_norm, inactive=inactive)

    def k_at(self, step: int) -> int | None:
        """Latents per token at a step; None for methods without k."""
        return None if self.k is None else self.k[step]

    def plan(self, step: int, dead: Int[Tensor, " dead"]) -> StepPlan:
        """What optimizer step `step` optimises."""
        k = self.k_at(step) or 0
        penalty = self.sparsity.penalty_at(step) if isinstance(self.sparsity, Penalised) else 0.0
        return StepPlan(
            sparsity=self.sparsity, k=k, penalty=penalty, loss=self.training.loss,
            auxiliary=self.training.auxiliary, auxiliary_k=self.auxiliary_k, dead=dead,
            mix=self.training.loss_mix,
        )  # fmt: skip

    def gradients(self, x: Activations, *, step: int, dead: Int[Tensor, " dead"]) -> StepResult:
        """Gradients of the global batch's mean loss, in the parameters' `.grad`; `x` is this rank's part."""
        plan = self.plan(step, dead)
        xn = self.crosscoder.normaliser.normalise(self.crosscoder.inputs(x))
        parts = xn.chunk(self.training.accumulate)
        results = [self._part(part, plan) for part in parts]
        if len(parts) * n_ranks() > 1:
            for parameter in self.crosscoder.parameters():
                assert parameter.grad is not None
                parameter.grad = sum_over_ranks(parameter.grad) / (len(parts) * n_ranks())
        if self.training.frozen_decoder:
            self.crosscoder.decoder.grad = None  # optimizers leave such a parameter alone
        return over_ranks(merge(results))

    def _part(self, xn: Activations, plan: StepPlan) -> StepResult:
        if self.sparse is not None:
            return self.sparse.gradients(self.crosscoder, xn, plan)
        with torch.autocast(xn.device.type, torch.bfloat16, enabled=self.training.precision == "bf16"):
            return dense.gradients(self.crosscoder, xn, plan)

    def figures(self, last: LastStep) -> dict[str, float]:
        """Loss terms, FVE per model and L0 of a step; its FVE is about the mean of this rank's tokens."""
        result, names = last.result, model_names(self.crosscoder)
        xn = self.crosscoder.normaliser.normalise(self.crosscoder.inputs(last.x))
        variance = (xn - xn.mean(dim=0)).square().sum(dim=(0, 2)) * n_ranks()
        fve = (1 - result.squared_error / variance).tolist()
        k = self.k_at(last.step)
        return {
            "loss": last.loss(),
            **{name: float(value) for name, value in result.terms.items()},
            **{f"fve_{name}": value for name, value in zip(names, fve, strict=True)},
            "l0": result.n_active / (xn.shape[0] * n_ranks()),
            "k": math.nan if k is None else k,
            "learning_rate": last.learning_rate,
            "gradient_norm": last.gradient_norm,
        }


def _sparse_step(sparsity: Sparsity, training: TrainingSettings, kind: str) -> BatchTopKStep | None:
    plain = type(sparsity) is BatchTopK  # a subclass may keep other codes
    delta = kind == "delta"
    unfit = None if plain else type(sparsity).__name__
    if delta and training.devices > 1:
        unfit = "delta on several devices"
    if training.step == "sparse" and unfit:
        raise ValueError(
            f"training.step=sparse works for sparsity=batch_topk, not for {unfit}; choose training.step=auto"
        )
    if training.step == "dense" or unfit:
        return None
    rows = training.accumulate == 1 and training.devices == 1 and training.optimizer != "adam_8bit"
    step = BatchTopKStep if training.devices == 1 else GlobalBatchTopKStep
    if training.shards > 1:
        step = ShardedBatchTopKStep
    return (DeltaTopKStep if delta else step)(
        encode="bfloat16" if training.precision == "bf16" else "float32",
        layout="auto" if rows else "dense",
    )


def _eight_bit(parameters: list[torch.nn.Parameter], **how: Any) -> torch.optim.Optimizer:
    """Moments in blocks of 8 bits (bitsandbytes): 2 bytes per weight instead of 8, on NVIDIA GPUs."""
    try:
        from bitsandbytes.optim import Adam8bit  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ValueError(
            "training.optimizer=adam_8bit needs the package bitsandbytes; "
            "pip install bitsandbytes, or choose optimizer=adam"
        ) from None
    return Adam8bit(parameters, **how)


def merge(results: Iterable[StepResult]) -> StepResult:
    """Result of a batch from those of its equal parts."""
    parts = list(results)
    if len(parts) == 1:
        return parts[0]
    of_delta = [part.smallest_delta for part in parts if part.smallest_delta is not None]
    return replace(
        parts[0],
        total=torch.stack([part.total for part in parts]).mean(),
        terms={name: torch.stack([p.terms[name] for p in parts]).mean() for name in parts[0].terms},
        fired=torch.stack([part.fired for part in parts]).any(dim=0),
        n_active=sum(part.n_active for part in parts),
        smallest_kept=_known_mean([part.smallest_kept for part in parts]),
        squared_error=torch.stack([part.squared_error for part in parts]).sum(dim=0),
        smallest_delta=_known_mean(of_delta) if of_delta else None,
    )


def _known_mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).nanmean()


def over_ranks(result: StepResult) -> StepResult:
    """Result of the global batch from those of the ranks' equal parts, on all ranks."""
    if n_ranks() == 1:
        return result
    names = list(result.terms)
    means = mean_over_ranks(torch.stack([result.total, *(result.terms[name] for name in names)]))
    n_active = sum_over_ranks(torch.tensor(result.n_active, device=result.fired.device))
    return replace(
        result,
        total=means[0],
        terms=dict(zip(names, means[1:], strict=True)),
        fired=largest_over_ranks(result.fired.int()).bool(),
        n_active=int(n_active),
        smallest_kept=_smallest_over_ranks(result.smallest_kept),
        squared_error=sum_over_ranks(result.squared_error),
        smallest_delta=None if result.smallest_delta is None else _smallest_over_ranks(result.smallest_delta),
    )


def _smallest_over_ranks(value: Tensor) -> Tensor:
    smallest = -largest_over_ranks(torch.where(value.isnan(), -torch.inf, -value))
    return torch.where(smallest.isinf(), torch.nan, smallest)


def clip_(optimizer: torch.optim.Optimizer, crosscoder: Crosscoder, *, max_norm: float) -> float:
    """Norm over all gradients before clipping; they are clipped here, or in `SparseRowAdam`'s coming step."""
    if isinstance(optimizer, SparseRowAdam):
        return optimizer.measure()
    return float(torch.nn.utils.clip_grad_norm_(crosscoder.parameters(), max_norm))


def check_step(result: StepResult, gradient_norm: float, *, step: int) -> None:
    """ValueError that names the term and the step when training has diverged."""
    bad = [name for name, value in result.terms.items() if not math.isfinite(value)]
    if not bad and not math.isfinite(gradient_norm):
        bad = ["gradient norm"]
    if bad:
        values = ", ".join(f"{name} = {float(v):g}" for name, v in result.terms.items())
        raise ValueError(
            f"training diverged at step {step}: {' and '.join(bad)} is not finite ({values}); "
            "set training.learning_rate lower, or training.warmup_steps higher"
        )
