"""The SimPO loss."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def token_log_probabilities(
    logits: Float[Tensor, "document token vocabulary"], ids: Int[Tensor, "document token"]
) -> Float[Tensor, "document token-1"]:
    """log pi(ids[t+1] | ids[:t+1]); entry t belongs to token t+1."""
    flat = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    return -flat.view(ids.shape[0], -1)


def mean_log_probability(
    log_probabilities: Float[Tensor, "document token-1"], answer: Bool[Tensor, "document token"]
) -> Float[Tensor, " document"]:
    """Length-normalised log-probability of each document's answer tokens (nats per token)."""
    kept = answer[:, 1:]
    return (log_probabilities * kept).sum(1) / kept.sum(1)


def simpo_loss(
    chosen: Float[Tensor, " pair"], rejected: Float[Tensor, " pair"], *, beta: float, gamma: float
) -> Float[Tensor, ""]:
    """Mean over pairs of -log sigmoid(beta * chosen - beta * rejected - gamma).

    `chosen` and `rejected` are length-normalised log-probabilities log pi(y|x) / |y|
    (Meng, Xia and Chen, arXiv 2405.14734, equation 6); there is no reference model.
    """
    return -F.logsigmoid(beta * (chosen - rejected) - gamma).mean()
