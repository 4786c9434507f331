"""Matching latents by direction and by code."""

from __future__ import annotations

import pytest
import torch

from crossdiff.core import matching
from crossdiff.core.matching import CodeCorrelation, nearest


def test_permuted_directions_are_matched_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "CHUNK", 7)
    own = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    found = nearest(own, 3 * own[order], n=2, alive=torch.ones(20, dtype=torch.bool))
    assert torch.equal(order[found.latent[:, 0]], torch.arange(20))
    assert torch.allclose(found.cosine[:, 0], torch.ones(20))
    assert (found.cosine[:, 1] < found.cosine[:, 0]).all()


def test_dead_latents_are_no_candidates() -> None:
    own = torch.eye(3)
    found = nearest(own, torch.eye(3), n=1, alive=torch.tensor([True, True, False]))
    assert found.latent[:, 0].tolist()[:2] == [0, 1]
    assert found.cosine[2, 0] == 0


def test_correlations_are_those_of_the_full_matrix_however_the_tokens_are_cut() -> None:
    generator = torch.Generator().manual_seed(0)
    own, other = torch.rand(500, 3, generator=generator), torch.rand(500, 3, 2, generator=generator)
    other[:, 1, 1] = 2 * own[:, 1] + 1
    sums, rest = CodeCorrelation(3, 2), CodeCorrelation(3, 2)
    sums.add(own[:100], other[:100])
    rest.add(own[100:], other[100:])
    sums.merge(rest)
    for i in range(3):
        for c in range(2):
            expected = torch.corrcoef(torch.stack([own[:, i], other[:, i, c]]).double())[0, 1]
            assert float(sums.value()[i, c]) == pytest.approx(float(expected), abs=1e-9)
    assert float(sums.value()[1, 1]) == pytest.approx(1.0)


def test_a_constant_code_has_no_correlation() -> None:
    sums = CodeCorrelation(1, 1)
    sums.add(torch.zeros(10, 1), torch.rand(10, 1, 1))
    assert sums.value().isnan().all()
