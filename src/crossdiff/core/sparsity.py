"""What keeps codes sparse: settings of each method, their schedules, and exact selection.

Two families are open to methods of your own (docs/add_a_sparsity.md): `LargestK` and `Penalised`.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from jaxtyping import Bool, Float
from pydantic import Field, InstanceOf, SerializeAsAny, model_validator
from torch import Tensor

from crossdiff.core import objectives
from crossdiff.core.axes import Code, PerLatent
from crossdiff.core.collective import largest_of_all, n_ranks
from crossdiff.settings import Settings


class LargestK(Settings):
    """k latents per token, annealed linearly from `k_initial` to `k` over the first `anneal_steps` steps."""

    k: int = Field(ge=1)
    k_initial: int | None = Field(default=None, ge=1)
    anneal_steps: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _anneals_downwards(self) -> LargestK:
        if self.k_initial is not None and self.k_initial < self.k:
            raise ValueError(f"k_initial={self.k_initial} is below k={self.k}; annealing goes downwards")
        return self

    def k_at(self, step: int, *, n_latents: int) -> int:
        """k of optimizer step `step` (from 0), never more than the dictionary has."""
        if self.k_initial is None or step >= self.anneal_steps:
            return self.k
        left = 1 - step / self.anneal_steps
        return min(n_latents, self.k + round((self.k_initial - self.k) * left))

    @property
    def threshold_start(self) -> int:
        """First step whose kept codes tell the inference threshold: the end of k annealing."""
        return self.anneal_steps if self.k_initial is not None else 0

    @abstractmethod
    def kept(self, scaled: Code, *, k: int) -> Bool[Tensor, "token latent"]:
        """Which scaled codes of this rank's batch stay, k per token on average; they carry no gradient."""


class BatchTopK(LargestK):
    """Keep the k * n_tokens largest scaled codes of the whole batch, over all ranks."""

    def kept(self, scaled: Code, *, k: int) -> Bool[Tensor, "token latent"]:
        """Ties go to the lowest flat index."""
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
        return largest_per_token(scaled, k=k)


class Penalised(Settings):
    """A penalty whose weight grows linearly from 0 over the first `warmup_steps` steps."""

    penalty: float = Field(ge=0)
    warmup_steps: int = Field(default=0, ge=0)

    def penalty_at(self, step: int) -> float:
        """Weight of the penalty at optimizer step `step` (from 0)."""
        return self.penalty * min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else self.penalty

    @abstractmethod
    def cost(self, code: Code, norm: PerLatent) -> Float[Tensor, ""]:
        """What is added to the loss, times the penalty; gradients reach the codes and the norms.

        A sum over latents: with designated latents it is asked for each price of sparsity apart.
        """


class L1(Penalised):
    """Reconstruction + penalty * sum_j f_j * norm_j, mean over tokens (method.md section 2)."""

    def cost(self, code: Code, norm: PerLatent) -> Float[Tensor, ""]:
        """Mean over tokens of sum_j f_j * norm_j."""
        return objectives.l1_penalty(code, norm)


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
        return objectives.tanh_penalty(code, norm, sharpness=self.sharpness)


Sparsity = LargestK | Penalised
AnySparsity = SerializeAsAny[InstanceOf[LargestK] | InstanceOf[Penalised]]
"""The type of a settings field: any method, recorded with all of its own settings."""


def within(sparsity: Sparsity, n_steps: int) -> Sparsity:
    """The same schedule, ended at half of a run that is too short for it, so that its end is reached."""
    name = "anneal_steps" if isinstance(sparsity, LargestK) else "warmup_steps"
    return sparsity.model_copy(update={name: min(getattr(sparsity, name), n_steps // 2)})


def check_fits(sparsity: Sparsity, *, n_latents: int) -> None:
    """ValueError when more latents per token are asked for than the dictionary has."""
    if isinstance(sparsity, LargestK) and sparsity.k > n_latents:
        raise ValueError(
            f"sparsity.k={sparsity.k:,} is larger than the dictionary's {n_latents:,} latents; "
            f"choose k <= {n_latents:,}, or a larger dictionary.n_latents"
        )


def largest(scaled: Code, *, count: int) -> Bool[Tensor, "token latent"]:
    """Mask of exactly `count` largest entries of the flattened batch; ties go to the lowest flat index."""
    flat = scaled.reshape(-1)
    if count >= flat.numel():
        return torch.ones_like(scaled, dtype=torch.bool)
    candidates = _candidates(scaled, count)
    values = flat if candidates is None else flat[candidates]
    kept = largest_of(values, count)
    mask = torch.zeros_like(flat, dtype=torch.bool)
    if candidates is None:
        mask = kept
    else:
        mask[candidates[kept]] = True
    return mask.view_as(scaled)


def largest_per_token(scaled: Code, *, k: int) -> Bool[Tensor, "token latent"]:
    """Mask of exactly k largest entries of every token; ties go to the lowest latent."""
    if k >= scaled.shape[1]:
        return torch.ones_like(scaled, dtype=torch.bool)
    kth = scaled.topk(k, dim=1).values[:, -1:]
    above = scaled > kth
    tied = scaled == kth
    missing = k - above.sum(dim=1, keepdim=True)
    return above | (tied & (tied.cumsum(dim=1) <= missing))


def largest_of(values: Float[Tensor, " entry"], count: int) -> Bool[Tensor, " entry"]:
    """Mask of exactly `count` largest of a list; ties go to the lowest index."""
    kth = values.topk(count, sorted=False).values.min()
    mask = values > kth
    tied = (values == kth).nonzero().squeeze(1)
    mask[tied[: count - int(mask.sum())]] = True
    return mask


def _candidates(scaled: Tensor, count: int) -> Tensor | None:
    """Flat indices, in order, that surely include the `count` largest; None when guessing does not pay.

    The guess is the count-th value of every 32nd token, lowered; it is checked against the whole batch.
    """
    sample = scaled[::32].reshape(-1)
    expected = round(count * sample.numel() / scaled.numel())
    if sample.numel() < 4096 or not 64 <= expected <= sample.numel() // 8:
        return None
    guess = 0.8 * sample.topk(expected, sorted=False).values.min()
    found = (scaled.reshape(-1) > guess).nonzero().squeeze(1)
    return found if count <= found.numel() <= scaled.numel() // 4 else None
