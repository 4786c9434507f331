"""The causal check (method.md section 7, Minder): what some latents differ by, added to the base states."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from crossdiff.core.codes import SparseCode
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.steering import raw_directions
from crossdiff.data.tokens import TokenKind


def difference_directions(crosscoder: Crosscoder) -> Float[Tensor, "latent d_model"]:
    """`d_j^tuned / s_tuned - d_j^base / s_base` in raw activation units; means and biases do not enter."""
    raw = raw_directions(crosscoder)
    return raw[:, 1] - raw[:, 0]


def patches(
    code: SparseCode,
    directions: Float[Tensor, "latent d_model"],
    members: Bool[Tensor, "set latent"],
) -> Float[Tensor, "set token d_model"]:
    """`sum_{j in S} f_j (d_j^tuned / s_tuned - d_j^base / s_base)` for every set S, active entries only."""
    found = directions.new_zeros(len(members), code.n_tokens, directions.shape[1])
    for patch, member in zip(found, members, strict=True):
        kept = member[code.latent]
        rows = code.value[kept, None] * directions[code.latent[kept]]
        patch.index_add_(0, code.token[kept], rows)
    return found


def divergence(
    tuned: Float[Tensor, "place vocabulary"], patched: Float[Tensor, "state place vocabulary"]
) -> Float[Tensor, "state place"]:
    """KL(tuned || patched) of the next-token distributions, in nats, from logits."""
    target = tuned.log_softmax(dim=-1)
    return (target.exp() * (target - patched.log_softmax(dim=-1))).sum(dim=-1)


def sets_of(latents: Sequence[Int[Tensor, "_"]], *, n_latents: int) -> Bool[Tensor, "set latent"]:
    """Membership masks of lists of latents."""
    members = torch.zeros(len(latents), n_latents, dtype=torch.bool)
    for row, chosen in zip(members, latents, strict=True):
        row[chosen] = True
    return members


def answer_places(kind: Integer[Tensor, " token"], *, first: int) -> Int[Tensor, " place"]:
    """Places of one document whose next token is among the `first` tokens of the chat's last message.

    Messages are the runs of tokens between control tokens of the template; a document with fewer than two
    (plain text, or a chat cut before its answer) has none. The last message is taken for the answer.
    """
    content = (kind != TokenKind.TEMPLATE) & (kind != TokenKind.BOS)
    edges = torch.diff(content.to(torch.int8), prepend=torch.zeros(1, dtype=torch.int8))
    starts = (edges == 1).nonzero().flatten()
    if len(starts) < 2 or not bool((kind == TokenKind.TEMPLATE).any()):
        return torch.zeros(0, dtype=torch.int64)
    start = int(starts[-1])
    length = int(content[start:].to(torch.int64).cumprod(0).sum())
    return torch.arange(start - 1, start - 1 + min(first, length))
