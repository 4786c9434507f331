"""Vectors that push a model's state along latents, in raw activation units (method.md section 2)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from crossdiff.core.crosscoder import Crosscoder


def raw_directions(crosscoder: Crosscoder) -> Float[Tensor, "latent model d_model"]:
    """`d_j^m / s_m`: what a code of 1 of latent j adds to the activation of model m, in raw units."""
    return crosscoder.decoder.detach() / crosscoder.normaliser.scale[:, None]


def random_like(
    vector: Float[Tensor, " d_model"], *, n_draws: int, seed: tuple[int, int]
) -> Float[Tensor, "draw d_model"]:
    """Isotropic random vectors of the same norm; a function of the two seeds."""
    generator = torch.Generator().manual_seed((seed[0] << 32) + seed[1])
    drawn = torch.randn(n_draws, len(vector), generator=generator, dtype=torch.float64)
    return (drawn / drawn.norm(dim=1, keepdim=True) * vector.norm().double()).to(vector.dtype)
