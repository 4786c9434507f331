"""Norms of decoder directions (method.md section 3); weights in raw units, or in another normalised space."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from crossdiff.core.codes import Directions, PerLatent
from crossdiff.core.crosscoder import LATENT_CHUNK, Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.normaliser import Normaliser


@dataclass(frozen=True)
class DecoderNorms:
    """Norms of the directions in the normalised space, for a pair (base, tuned) of a crosscoder's models.

    delta_norm is 0 for base-only, one half for shared and 1 for tuned-only latents; cosine is that between
    the two directions. Both are NaN where a norm they divide by is 0, cosines also for two families.
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
    cosine = dots / norm.prod(dim=1) if has_one_space(crosscoder) else torch.full_like(dots, torch.nan)
    return DecoderNorms(norm.T.contiguous(), delta_norm(*norm.unbind(dim=1)), cosine)


def delta_norm(base: PerLatent, tuned: PerLatent) -> PerLatent:
    """`1/2 (1 + (|d_tuned| - |d_base|) / max(|d_tuned|, |d_base|))`, from the norms of both directions."""
    return (1 + (tuned - base) / torch.maximum(tuned, base)) / 2


def has_one_space(crosscoder: Crosscoder) -> bool:
    """Whether directions of its models can be compared; those of two families cannot (docs/inputs.md)."""
    return not crosscoder.metadata.get("two_families", False)


def gram(decoder: Directions) -> Float64[Tensor, "probe model latent"]:
    """<d_j^p, d_j^m> with D = |d|^2 on the diagonal, in float64, in slices of latents."""
    slices = (part.double() for part in decoder.detach().split(LATENT_CHUNK))
    return torch.cat([torch.einsum("lpd,lmd->pml", part, part) for part in slices], dim=2)


def raw_directions(crosscoder: Crosscoder) -> Float[Tensor, "latent model d_model"]:
    """`d_j^m / s_m`, which a code of 1 of latent j adds to the activation of model m, in raw units."""
    return crosscoder.decoder.detach() / crosscoder.normaliser.scale[:, None]


def random_like(
    vector: Float[Tensor, " d_model"], *, n_draws: int, seed: tuple[int, int]
) -> Float[Tensor, "draw d_model"]:
    """Isotropic random vectors with the norm of `vector`, a function of the two seeds."""
    generator = torch.Generator().manual_seed((seed[0] << 32) + seed[1])
    drawn = torch.randn(n_draws, len(vector), generator=generator, dtype=torch.float64)
    return (drawn / drawn.norm(dim=1, keepdim=True) * vector.norm().double()).to(vector.dtype)


@torch.no_grad()
def renormalised(
    crosscoder: Crosscoder, normaliser: Normaliser, dictionary: DictionarySettings | None = None
) -> Crosscoder:
    """The crosscoder with weights in the space of `normaliser`, with equal codes and reconstructions.

    With `xn = (x - mean) scale` in the old and `xn' = (x - mean') scale'` in the new space: encoders are
    multiplied by scale / scale', decoders by scale' / scale, and the biases absorb the shift. The threshold
    is unset, because scaled codes change with the decoders. `dictionary` defaults to the crosscoder's.
    """
    old = crosscoder.normaliser
    scale, scale_new = old.scale.double()[:, None], normaliser.scale.double()[:, None]
    mean, mean_new = old.mean.double(), normaliser.mean.double()
    encoder, decoder = crosscoder.encoder.double(), crosscoder.decoder.double()
    crosscoder_out = Crosscoder(
        dictionary or crosscoder.settings,
        n_models=crosscoder.n_models,
        d_model=crosscoder.d_model,
        normaliser=normaliser,
    )
    shift = (encoder * (scale * (mean_new - mean))).sum(dim=(1, 2))
    crosscoder_out.encoder.copy_(encoder * scale / scale_new)
    crosscoder_out.encoder_bias.copy_(crosscoder.encoder_bias.double() + shift)
    crosscoder_out.decoder.copy_(decoder * scale_new / scale)
    crosscoder_out.decoder_bias.copy_(
        scale_new * (crosscoder.decoder_bias.double() / scale + mean - mean_new)
    )
    if crosscoder.log_gate is not None:
        crosscoder_out.add_gate_(1.0)
        assert crosscoder_out.log_gate is not None
        crosscoder_out.log_gate.copy_(crosscoder.log_gate)
    return crosscoder_out
