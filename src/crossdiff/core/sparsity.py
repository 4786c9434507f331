"""Sparsity methods: settings, schedules, and which codes are kept or what they cost.

Your methods subclass `LargestK` or `Penalised` (docs/add_a_sparsity.md). Only tensor functions import torch.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from pydantic import Field, InstanceOf, SerializeAsAny, model_validator

from crossdiff.settings import Settings

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    from crossdiff.core.codes import Code, PerLatent


class LargestK(Settings):
    """k latents per token, annealed linearly from `k_initial` to `k` over the first `anneal_steps` steps.

    The annealed k is rounded to the nearest whole number; some other trainers truncate it.
    """

    k: int = Field(ge=1)
    k_initial: int | None = Field(default=None, ge=1)
    anneal_steps: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _anneals_downwards(self) -> LargestK:
        if self.k_initial is not None and self.k_initial < self.k:
            raise ValueError(f"k_initial={self.k_initial} is below k={self.k}; annealing goes downwards")
        return self

    def k_at(self, step: int, *, n_latents: int) -> int:
        """k of optimizer step `step` (from 0), at most `n_latents`."""
        if self.k_initial is None or step >= self.anneal_steps:
            return self.k
        left = 1 - step / self.anneal_steps
        return min(n_latents, self.k + round((self.k_initial - self.k) * left))

    @property
    def threshold_start(self) -> int:
        """First step whose kept codes enter the inference threshold, the end of annealing."""
        return self.anneal_steps if self.k_initial is not None else 0

    @abstractmethod
    def kept(self, scaled: Code, *, k: int) -> Bool[Tensor, "token latent"]:
        """Mask of this rank's scaled codes to keep, k per token on average; codes have no gradient."""


class BatchTopK(LargestK):
    """Keep the k * n_tokens largest scaled codes of the whole batch, over all ranks."""

    def kept(self, scaled: Code, *, k: int) -> Bool[Tensor, "token latent"]:
        """Ties go to the lowest flat index."""
        from crossdiff.core.collective import n_ranks
        from crossdiff.core.threshold import largest, largest_of_all

        count = k * scaled.shape[0]
        if n_ranks() == 1:
            return largest(scaled, count=count)
        flat = scaled.reshape(-1)
        mask, _ = largest_of_all(flat, count=count * n_ranks(), limit=flat.numel())
        return mask.view_as(scaled)


class TopK(LargestK):
    """Keep the k largest scaled codes of every token."""

    def kept(self, scaled: Code, *, k: int) -> Bool[Tensor, "token latent"]:
        """Ties go to the lowest latent."""
        from crossdiff.core.threshold import largest_per_token

        return largest_per_token(scaled, k=k)


class Penalised(Settings):
    """A penalty that grows linearly over the first `warmup_steps` W steps.

    Step s (from 0) has (s + 1) / W of it; some other trainers have s / W.
    """

    penalty: float = Field(ge=0)
    warmup_steps: int = Field(default=0, ge=0)

    def penalty_at(self, step: int) -> float:
        """Weight of the penalty at optimizer step `step` (from 0)."""
        return self.penalty * min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else self.penalty

    @abstractmethod
    def cost(self, code: Code, norm: PerLatent) -> Float[Tensor, ""]:
        """The term that, times the penalty, is added to the loss; gradients reach codes and norms.

        It must be a sum over latents, because designated latents are costed apart, times their weight.
        """


class L1(Penalised):
    """Reconstruction + penalty * sum_j f_j * norm_j, mean over tokens (method.md section 2)."""

    def cost(self, code: Code, norm: PerLatent) -> Float[Tensor, ""]:
        """Mean over tokens of sum_j f_j * norm_j."""
        return (code * norm).sum(dim=1).mean()


class JumpReLU(Penalised):
    """A learned gate per latent, and the penalty sum_j tanh(sharpness * v_j) (Anthropic, Jan 2025: c = 4).

    The gate's gradient is the rectangular straight-through estimator of width `bandwidth`;
    `revival` weighs sum_j relu(gate_j - pre_j) * norm_j, which pulls silent latents back.
    """

    sharpness: float = Field(default=4.0, gt=0)
    initial_gate: float = Field(default=0.1, gt=0)
    bandwidth: float = Field(default=2.0, gt=0)
    revival: float = Field(default=3e-6, ge=0)

    def cost(self, code: Code, norm: PerLatent) -> Float[Tensor, ""]:
        """Mean over tokens of sum_j tanh(sharpness * v_j)."""
        return (self.sharpness * code * norm).tanh().sum(dim=1).mean()


Sparsity = LargestK | Penalised
AnySparsity = SerializeAsAny[InstanceOf[LargestK] | InstanceOf[Penalised]]
"""Type of a settings field for any method, serialised with all its settings."""


def within(sparsity: Sparsity, n_steps: int) -> Sparsity:
    """The sparsity with a schedule of at most half of the run."""
    name = "anneal_steps" if isinstance(sparsity, LargestK) else "warmup_steps"
    return sparsity.model_copy(update={name: min(getattr(sparsity, name), n_steps // 2)})


def check_fits(sparsity: Sparsity, *, n_latents: int, architecture: str = "standard") -> None:
    """ValueError where k exceeds the dictionary, or architecture=delta lacks a k of at least 2."""
    if architecture == "delta" and not (isinstance(sparsity, LargestK) and min(sparsity.k, n_latents) > 1):
        raise ValueError(
            "dictionary.architecture=delta divides k between two partitions of latents, so it needs a "
            "sparsity with k of 2 and more, and 2 latents; choose sparsity=batch_topk or sparsity=topk"
        )
    if isinstance(sparsity, LargestK) and sparsity.k > n_latents:
        raise ValueError(
            f"sparsity.k={sparsity.k:,} is larger than the dictionary's {n_latents:,} latents; "
            f"choose k <= {n_latents:,}, or a larger dictionary.n_latents"
        )


def __getattr__(name: str) -> Any:
    """The selections `largest*` of `crossdiff.core.threshold`, which users' methods import from here."""
    if not name.startswith("largest"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from crossdiff.core import threshold

    return getattr(threshold, name)
