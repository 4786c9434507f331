"""Settings of a dictionary (size, code norm, architecture), and the subspace of an architecture.

Only the tensor functions import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from crossdiff.settings import Settings

if TYPE_CHECKING:
    from jaxtyping import Bool
    from torch import Tensor

CodeNorm = Literal["sum", "concat", "mixed", "none"]
Architecture = Literal["standard", "designated_shared", "dedicated_feature", "dedicated", "delta", "diff_sae"]
DEDICATED = ("dedicated_feature", "dedicated")


class DictionarySettings(Settings):
    """Settings of a crosscoder that do not concern its training.

    architecture
        standard: every latent has a free decoder direction per model.
        designated_shared: the first `designated_share` of the latents have one direction for all models
            and have the sparsity weight `designated_weight` (Anthropic, Feb 2025: 0.1 to 0.2).
        dedicated_feature: `dedicated_share` of the latents per model read and write that model only; encoder
            and decoder of the others are fixed to zero. Other latents are free per model (the dedicated
            feature crosscoder of Jiralerspong & Bricken 2026, arXiv 2602.11729: 5 % each).
        dedicated (or dedicated_tied): our tighter form. Dedicated latents write to one model but
            read all, and other latents have one direction for all. Worse on planted truth
            (latent_scaling.md).
        delta: the first `delta_share` of the latents form a partition with `delta_k_share` of k
            and `delta_weight` times a loss on the difference of the two models (`core.delta`).
        diff_sae: one dictionary on `x_tuned - x_base`, with a model axis of 1.
    initial_norm
        Euclidean norm of each latent's direction over **all** models together (its concatenated direction)
        at the start: 1.0 for the TopK family, 0.005 for L1. With the encoder equal to the decoder, norm 1
        projects onto the direction; norm 1 per model would reconstruct everything `n_models` times.
    initial_decoders
        equal: a latent starts with one direction in all models (Minder et al.). independent: with a random
        direction in each, for the self-diff null (method.md section 6), in which a model against itself would
        keep equal directions, so that the null would test nothing.
    """

    n_latents: int = Field(ge=1)
    code_norm: CodeNorm = "sum"
    architecture: Architecture = "standard"
    initial_norm: float = Field(default=1.0, gt=0)
    initial_decoders: Literal["equal", "independent"] = "equal"
    designated_share: float = Field(default=0.1, gt=0, lt=1)
    designated_weight: float = Field(default=0.15, gt=0, le=1)
    dedicated_share: float = Field(default=0.05, gt=0, lt=0.5)
    delta_share: float = Field(default=0.1, gt=0, lt=1)
    delta_k_share: float = Field(default=0.25, gt=0, lt=1)
    delta_weight: float = Field(default=1.0, ge=0)

    ADDED: ClassVar[frozenset[str]] = frozenset({"delta_share", "delta_k_share", "delta_weight"})

    @field_validator("architecture", mode="before")
    @classmethod
    def _one_name(cls, given: Any) -> Any:
        """`dedicated_tied` is `dedicated`, the older name, which keys keep."""
        return "dedicated" if given == "dedicated_tied" else given


def sparsity_weight(settings: DictionarySettings) -> Tensor | None:
    """Sparsity weight of every latent, or None where all are 1.

    A ranking uses `v_j / weight_j`, a penalty `weight_j * cost_j`; a weight below 1 favours the latent.
    """
    if settings.architecture != "designated_shared":
        return None
    import torch

    weight = torch.ones(settings.n_latents)
    weight[tied_latents(settings)] = settings.designated_weight
    return weight


def n_delta(settings: DictionarySettings) -> int:
    """Number of latents, from the first, in the difference's partition (`core.delta`), else 0."""
    if settings.architecture != "delta":
        return 0
    return min(max(1, round(settings.delta_share * settings.n_latents)), settings.n_latents - 1)


def tied_latents(settings: DictionarySettings, *, n_models: int = 2) -> slice:
    """The latents with one direction for all models."""
    match settings.architecture:
        case "designated_shared":
            return slice(0, max(1, round(settings.designated_share * settings.n_latents)))
        case "dedicated":
            return slice(n_models * _dedicated_count(settings, n_models), settings.n_latents)
        case _:
            return slice(0, 0)


def writes_to(settings: DictionarySettings, *, n_models: int) -> Bool[Tensor, "latent model"]:
    """False where an architecture fixes a decoder direction to zero."""
    import torch

    allowed = torch.ones(settings.n_latents, n_models, dtype=torch.bool)
    if settings.architecture in DEDICATED:
        count = _dedicated_count(settings, n_models)
        for model in range(n_models):
            allowed[model * count : (model + 1) * count] = False
            allowed[model * count : (model + 1) * count, model] = True
    return allowed


def project_(directions: Tensor, settings: DictionarySettings) -> None:
    """Project decoder directions, or their gradients, in place onto the architecture's linear subspace.

    Tied latents get the mean over models, fixed directions zero. Projected gradients keep Adam's updates in
    the subspace when the start is in it.
    """
    n_models = directions.shape[1]
    tied = tied_latents(settings, n_models=n_models)
    if tied.stop > tied.start:
        directions[tied] = directions[tied].mean(dim=1, keepdim=True)
    if settings.architecture in DEDICATED:
        _mask_(directions, settings)


def project_encoder_(directions: Tensor, settings: DictionarySettings) -> None:
    """Set encoder directions in place to zero where a dedicated feature does not read."""
    if settings.architecture == "dedicated_feature":
        _mask_(directions, settings)


def _mask_(directions: Tensor, settings: DictionarySettings) -> None:
    allowed = writes_to(settings, n_models=directions.shape[1]).to(directions.device)
    directions.masked_fill_(~allowed[:, :, None], 0)


def _dedicated_count(settings: DictionarySettings, n_models: int) -> int:
    count = max(1, round(settings.dedicated_share * settings.n_latents))
    if n_models * count >= settings.n_latents:
        raise ValueError(
            f"dictionary.dedicated_share={settings.dedicated_share} for each of {n_models} models leaves no "
            f"shared latent of {settings.n_latents:,}; choose less than {1 / n_models:g}"
        )
    return count


def encoder_flops(n_latents: int, d_model: int, n_tokens: int) -> float:
    """FLOPs of the encoder products of two models: two per weight and token."""
    return 2.0 * 2 * d_model * n_latents * n_tokens
