"""Planted topics are found; the error is what it says."""

import pytest
import torch

from crossdiff.core.topics import find_topics


def planted(n_rows: int = 120) -> tuple[torch.Tensor, torch.Tensor]:
    """Three groups of four columns; every row has one group, at a size of its own."""
    generator = torch.Generator().manual_seed(3)
    directions = torch.zeros(3, 12)
    for group in range(3):
        directions[group, 4 * group : 4 * group + 4] = torch.rand(4, generator=generator) + 0.5
    directions = directions / directions.norm(dim=1, keepdim=True)
    sizes = torch.rand(n_rows, generator=generator) + 0.5
    return sizes[:, None] * directions[torch.arange(n_rows) % 3], directions


def test_planted_groups_are_the_topics() -> None:
    matrix, directions = planted()
    topics = find_topics(matrix.to_sparse(), 3, seed=0)
    best = (topics.directions @ directions.T).max(dim=0).values
    assert best.min() > 0.999
    assert topics.share_explained == pytest.approx(1, abs=1e-3)
    assert topics.codes.argmax(dim=1).unique().numel() == 3


def test_the_share_is_that_of_the_dense_matrix_and_rises_with_steps() -> None:
    matrix = torch.rand(30, 20, generator=torch.Generator().manual_seed(0))
    shares = []
    for n_steps in (1, 5, 50):
        found = find_topics(matrix.to_sparse(), 4, seed=1, n_steps=n_steps)
        left = (matrix - found.codes @ found.directions).square().sum() / matrix.square().sum()
        assert found.share_explained == pytest.approx(1 - float(left), abs=1e-4)
        assert (found.codes >= 0).all()
        shares.append(found.share_explained)
    assert shares == sorted(shares)
