"""AuxK on the compact subset of dead latents, with its gradients written out."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from crossdiff.core.collective import residual_variance
from crossdiff.core.objectives import auxiliary_code
from crossdiff.core.sparse.kernels import RowGradients, Rows


def auxiliary_step(
    x: Rows, residual: Rows, rows: RowGradients, norm: Float[Tensor, " dead"], *, k: int, weight: float
) -> tuple[Float[Tensor, ""], RowGradients]:
    """The AuxK loss (`objectives.auxiliary_loss`) and `weight` times its gradients at the dead latents.

    `rows` carries the weights of the dead latents, gathered into compact matrices; `residual` is `x - x_hat`.
    A residual that does not vary (a batch of one) gives loss 0 and no gradient.
    """
    variance = residual_variance(residual)
    code = auxiliary_code((x @ rows.encoder.T + rows.encoder_bias).relu(), norm, k=k)
    error = code @ rows.decoder - residual
    loss = torch.where(variance > 0, error.square().sum(dim=1).mean() / variance, 0)
    factor = torch.where(variance > 0, 2 * weight / (x.shape[0] * variance), 0)
    gradient = error.mul_(factor)
    code_gradient = (gradient @ rows.decoder.T).masked_fill_(code == 0, 0)
    return loss, RowGradients(
        rows.latent,
        encoder=code_gradient.T @ x,
        encoder_bias=code_gradient.sum(dim=0),
        decoder=code.T @ gradient,
    )
