"""AuxK on the compact subset of dead latents, with its gradients written out."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from crossdiff.core.codes import SparseCode
from crossdiff.core.collective import residual_variance
from crossdiff.core.sparse.backends import suited
from crossdiff.core.sparse.kernels import Backward, ByLatent, Kernels, RowGradients, Rows, Scratch

ALIGNED = 64
"""Matrix products are up to 1.5 times as fast where their width is a multiple of this."""


def auxiliary_step(
    batch: Backward,
    rows: RowGradients,
    norm: Float[Tensor, " dead"],
    *,
    k: int,
    weight: float,
    kernels: Kernels,
) -> tuple[Float[Tensor, ""], RowGradients]:
    """The AuxK loss (`dense.auxiliary_loss`) and `weight` times its gradients at the dead latents.

    `rows` has the weights of the dead latents, gathered into compact matrices; `batch.gradient` is the
    residual `x - x_hat`. A residual that does not vary (a batch of one) gives loss 0 and no gradient.
    """
    code = largest_dead(batch.x, rows, norm, k=k, kernels=kernels)
    return revived(batch, rows, code, weight=weight, kernels=kernels)


def revived(
    batch: Backward,
    rows: RowGradients,
    code: SparseCode,
    *,
    weight: float,
    kernels: Kernels,
    summed: Callable[[Rows], Rows] = lambda decoded: decoded,
) -> tuple[Float[Tensor, ""], RowGradients]:
    """`auxiliary_step` once the code of the dead latents is known.

    `summed` adds up what this and other ranks, which hold other dead latents, decode; a rank may have none.
    """
    residual = batch.gradient
    variance = residual_variance(residual)  # of the global batch, over all ranks
    groups = ByLatent.of(code, latents=torch.arange(code.n_latents, device=residual.device))
    work = suited(kernels, code)
    decoded = work.decode(code, groups, rows.decoder) if code.n_latents else torch.zeros_like(residual)
    error = summed(decoded).sub_(residual)
    loss = torch.where(variance > 0, error.square().sum(dim=1).mean() / variance, 0)
    factor = torch.where(variance > 0, 2 * weight / (residual.shape[0] * variance), 0)
    if not code.n_latents:
        return loss, rows
    down = Backward(batch.x, error.mul_(factor))
    gradients = work.backward(code, groups, down, rows.decoder, scratch=Scratch())
    return loss, RowGradients(rows.latent, gradients.encoder, gradients.encoder_bias, gradients.decoder)


def largest_dead(
    x: Float[Tensor, "token width"],
    rows: RowGradients,
    norm: Float[Tensor, " dead"],
    *,
    k: int,
    kernels: Kernels,
) -> SparseCode:
    """The k largest codes per token among the dead latents, padded with latents that are never positive."""
    n_dead = norm.shape[0]
    padding = -n_dead % ALIGNED
    pre = torch.addmm(F.pad(rows.encoder_bias, (0, padding)), x, F.pad(rows.encoder, (0, 0, 0, padding)).T)
    pre[:, n_dead:] = -torch.inf
    largest = kernels.largest_per_token(pre, F.pad(norm, (0, padding), value=1.0), k)
    return SparseCode(*largest, x.shape[0], n_dead)
