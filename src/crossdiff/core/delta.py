"""The Delta-Crosscoder: a partition of latents for the difference of two models, with its own k and loss.

Kassem et al. 2026 (arXiv 2603.04426): the latents are split into S and D, each with a BatchTopK of its own,
and the loss is the reconstruction error, AuxK and

    delta_weight * |z_D (W_D^tuned - W_D^base) - (xn^tuned - xn^base)|^2

on D alone. The source is the paper's abstract and its reviews: the full equations could not be read, and the
authors' code is not public. Chosen here: each partition has a free direction per model, activations are
centred so that the difference has no bias, D has `delta_share` of the latents and `delta_k_share` of k, and
pairs are matched tokens of the same text.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crossdiff.core.codes import Activations, Code, Directions
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings, n_delta
from crossdiff.core.sparsity import LargestK

Difference = Float[Tensor, "token d_model"]


@dataclass(frozen=True)
class Partition:
    """Consecutive latents, with `k` codes per token among them."""

    latents: slice
    k: int


def partitions(settings: DictionarySettings, *, k: int) -> tuple[Partition, Partition]:
    """D and S of a dictionary with `k` (at least 2) codes per token; each has at least one."""
    k_delta, border = min(max(1, round(settings.delta_k_share * k)), k - 1), n_delta(settings)
    return Partition(slice(0, border), k_delta), Partition(slice(border, settings.n_latents), k - k_delta)


def kept(
    chooser: LargestK, scaled: Code, settings: DictionarySettings, *, k: int
) -> Bool[Tensor, "token latent"]:
    """Mask of the codes that the sparsity keeps in each partition."""
    parts = partitions(settings, k=k)
    return torch.cat([chooser.kept(scaled[:, part.latents], k=part.k) for part in parts], dim=1)


def difference(x: Activations) -> Difference:
    """Tuned minus base."""
    return x[:, 1] - x[:, 0]


def decoded_difference(code: Code, decoder: Directions, settings: DictionarySettings) -> Difference:
    """`z_D (W_D^tuned - W_D^base)`."""
    latents = slice(0, n_delta(settings))
    return code[:, latents] @ (decoder[latents, 1] - decoder[latents, 0])


def smallest(
    positive: Float[Tensor, " active"], in_delta: Bool[Tensor, " active"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The smallest kept scaled code of S and of D; NaN without any."""
    nothing = positive.new_tensor(float("nan"))
    of_s, of_d = positive[~in_delta], positive[in_delta]
    return (of_s.min() if of_s.numel() else nothing), (of_d.min() if of_d.numel() else nothing)


def set_ratio_(crosscoder: Crosscoder, of_delta: float, of_rest: float) -> None:
    """Set the ratio of the two thresholds, where both are known and positive."""
    if of_delta > 0 and of_rest > 0:  # not so for NaN
        assert crosscoder.delta_ratio is not None
        crosscoder.delta_ratio.fill_(of_delta / of_rest)
