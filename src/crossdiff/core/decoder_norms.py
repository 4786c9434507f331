"""Which model a latent belongs to by the norms of its decoder directions (method.md section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crossdiff.core.axes import Directions, PerLatent
from crossdiff.core.crosscoder import Crosscoder

KINDS = ("base_only", "tuned_only", "shared", "other", "dead")


@dataclass(frozen=True)
class DecoderNorms:
    """Norms of the directions in the normalised space, for a pair (base, tuned) of a crosscoder's models.

    delta_norm is 0 for base-only, one half for shared and 1 for tuned-only latents; cosine is that between
    the two directions. Both are NaN where a norm they divide by is 0.
    """

    norm: Float[Tensor, "model latent"]
    delta_norm: PerLatent
    cosine: PerLatent


def decoder_norms(crosscoder: Crosscoder, *, base: int = 0, tuned: int = 1) -> DecoderNorms:
    """Norms, `delta_norm` and cosines of a crosscoder's latents; `base` and `tuned` index its models."""
    if crosscoder.n_models < 2:
        raise ValueError(
            f"a {crosscoder.settings.architecture} dictionary has one direction per latent: there are "
            "no norms to compare; use dictionary.architecture=standard"
        )
    pair = crosscoder.decoder.detach()[:, [base, tuned]]
    dots = (pair[:, 0] * pair[:, 1]).sum(dim=1)
    norm = pair.norm(dim=2)
    return DecoderNorms(norm.T.contiguous(), delta_norm(pair), dots / norm.prod(dim=1))


def delta_norm(decoder: Directions) -> PerLatent:
    """`1/2 (1 + (|d_tuned| - |d_base|) / max(|d_tuned|, |d_base|))`; `decoder` has the models base, tuned."""
    base, tuned = decoder.norm(dim=2).unbind(dim=1)
    return (1 + (tuned - base) / torch.maximum(tuned, base)) / 2


def kinds(delta: PerLatent, *, alive: Bool[Tensor, " latent"]) -> list[str]:
    """base_only 0-0.1, shared 0.4-0.6, tuned_only 0.9-1, the rest other; dead where it never fired."""
    return [
        _kind(value) if lives else "dead" for value, lives in zip(delta.tolist(), alive.tolist(), strict=True)
    ]


def _kind(delta: float) -> str:
    if delta <= 0.1:
        return "base_only"
    if delta >= 0.9:
        return "tuned_only"
    return "shared" if 0.4 <= delta <= 0.6 else "other"
