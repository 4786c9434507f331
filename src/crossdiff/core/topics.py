"""Topics of a sparse, non-negative matrix: groups of columns that are large in the same rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

EPSILON = 1e-9


@dataclass(frozen=True)
class Topics:
    """X is close to `codes @ directions`, both non-negative; directions have length 1.

    share_explained is 1 - |X - codes @ directions|^2 / |X|^2.
    """

    codes: Float[Tensor, "row topic"]
    directions: Float[Tensor, "topic column"]
    share_explained: float


def find_topics(matrix: Tensor, n_topics: int, *, seed: int, n_steps: int = 100) -> Topics:
    """Non-negative matrix factorisation of a sparse float32 matrix [row, column] under the squared error.

    Multiplicative updates (Lee and Seung 2001, NIPS 13, theorem 1); they never raise the error. The start is
    random and positive, drawn from `seed`; another seed can find other topics.
    """
    generator = torch.Generator().manual_seed(seed)
    n_rows, n_columns = matrix.shape
    squared = float(matrix.coalesce().values().square().sum())
    scale = (float(torch.sparse.sum(matrix)) / (n_rows * n_columns * n_topics)) ** 0.5
    codes = scale * (torch.rand(n_rows, n_topics, generator=generator) + 0.1)
    directions = scale * (torch.rand(n_topics, n_columns, generator=generator) + 0.1)
    turned = matrix.t().coalesce()
    for _ in range(n_steps):
        directions = directions * (turned @ codes).T / (codes.T @ codes @ directions + EPSILON)
        codes = codes * (matrix @ directions.T) / (codes @ (directions @ directions.T) + EPSILON)
    length = directions.norm(dim=1, keepdim=True).clamp(min=EPSILON)
    directions, codes = directions / length, codes * length.T
    crossed = float((codes * (matrix @ directions.T)).double().sum())
    fitted = float(((codes.T @ codes).double() * (directions @ directions.T).double()).sum())
    left = squared - 2 * crossed + fitted
    return Topics(codes, directions, 1 - left / squared if squared else float("nan"))
