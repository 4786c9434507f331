"""Where the answer of a chat stands inside a document, read off the kinds of its tokens."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from crossdiff.data.tokens import TokenKind


def answer_places(kind: Int[Tensor, " token"], *, first: int) -> Int[Tensor, " place"]:
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
