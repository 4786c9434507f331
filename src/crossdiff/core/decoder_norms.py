"""Which model a latent belongs to by the norms of its decoder directions (method.md section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from crossdiff.core.axes import PerLatent
from crossdiff.core.crosscoder import Crosscoder


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
    return DecoderNorms(norm.T.contiguous(), delta_norm(*norm.unbind(dim=1)), dots / norm.prod(dim=1))


def delta_norm(base: PerLatent, tuned: PerLatent) -> PerLatent:
    """`1/2 (1 + (|d_tuned| - |d_base|) / max(|d_tuned|, |d_base|))`, from the norms of both directions."""
    return (1 + (tuned - base) / torch.maximum(tuned, base)) / 2
