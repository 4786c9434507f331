"""Matching across crosscoders: permuted directions come back, sparse correlations equal the dense ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from crossdiff.core import matching
from crossdiff.core.codes import SparseCode
from crossdiff.core.matching import CodeCorrelation, nearest_code, nearest_direction, pairwise_mcc, twins_of


def sparse(code: Tensor) -> SparseCode:
    token, latent = code.nonzero(as_tuple=True)
    return SparseCode(token, latent, code[token, latent], *code.shape)


def test_permuted_directions_are_matched_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "CHUNK", 7)
    generator = torch.Generator().manual_seed(0)
    own = torch.randn(30, 12, generator=generator)
    order = torch.randperm(30, generator=generator)
    found = nearest_direction(own, 3 * own[order], alive=torch.ones(30, dtype=torch.bool))
    assert torch.equal(order[found.latent], torch.arange(30))
    assert torch.allclose(found.similarity, torch.ones(30))


def test_dead_latents_are_no_candidates() -> None:
    own = torch.eye(3)
    found = nearest_direction(own, own, alive=torch.tensor([False, True, True]))
    assert found.latent[0] != 0
    assert found.latent[1:].tolist() == [1, 2]
    none = nearest_direction(own, own, alive=torch.zeros(3, dtype=torch.bool))
    assert none.latent.tolist() == [-1, -1, -1]
    assert none.similarity.isnan().all()


def test_correlations_are_those_of_the_full_matrix_however_the_tokens_are_cut() -> None:
    generator = torch.Generator().manual_seed(1)
    own = torch.randn(200, 9, generator=generator).clamp(min=1) - 1
    other = torch.randn(200, 7, generator=generator).clamp(min=0.5) - 0.5
    other[:, 2] = 3 * own[:, 4]
    chosen = torch.tensor([4, 0, 7])
    sums = CodeCorrelation(chosen, 9, 7)
    for rows in torch.arange(200).split(33):
        sums.add(sparse(own[rows]), sparse(other[rows]))
    expected = torch.corrcoef(torch.cat([own[:, chosen], other], dim=1).T.double())[:3, 3:]
    assert torch.allclose(sums.value(), expected, atol=1e-6)
    found = nearest_code(sums.value())
    assert int(found.latent[0]) == 2
    assert float(found.similarity[0]) == pytest.approx(1.0)


def test_a_constant_code_has_no_correlation_and_no_twin() -> None:
    own, other = torch.zeros(50, 2), torch.rand(50, 3, generator=torch.Generator().manual_seed(2))
    sums = CodeCorrelation(torch.tensor([1]), 2, 3)
    sums.add(sparse(own), sparse(other))
    assert sums.value().isnan().all()
    assert nearest_code(sums.value()).latent.tolist() == [-1]


def test_a_twin_is_one_latent_near_in_direction_and_in_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 0: latent 0 is nearest in direction, 1 in code, none in both; row 1: latent 2 is second in each."""
    monkeypatch.setattr(matching, "CHUNK", 2)
    own = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    other = torch.tensor([[1.0, 0.0], [0.0, -1.0], [0.6, 0.8], [0.0, 5.0], [-3.0, 0.0]])
    nan = float("nan")
    correlation = torch.tensor(
        [[0.1, 0.9, 0.2, nan, 0.0], [0.0, 0.9, 0.7, 0.4, 0.0], [0.0, 0.0, 0.0, 0.0, 0.9]]
    ).double()
    alive = torch.tensor([True, True, True, True, False])
    found = twins_of(own, other, correlation, alive=alive, min_cosine=0.7, min_correlation=0.5)
    assert found.latent.tolist() == [-1, 2, -1]  # the last one's like is dead
    assert found.cosine[1].item() == pytest.approx(0.8)
    assert found.correlation[1].item() == pytest.approx(0.7)
    assert found.cosine[[0, 2]].isnan().all()


def test_codes_of_different_tokens_are_refused() -> None:
    sums = CodeCorrelation(torch.tensor([0]), 1, 1)
    with pytest.raises(ValueError, match="encode the same tokens"):
        sums.add(sparse(torch.ones(3, 1)), sparse(torch.ones(4, 1)))


def test_pairwise_mcc_is_the_mean_of_the_best_one_to_one_matching() -> None:
    """By hand, cosines (0, 1) and (0.6, 0.8): row 0 takes the second latent, 0.6 is left for row 1."""
    own = torch.tensor([[-2.0, 0.0], [0.8, 0.6]])
    other = torch.tensor([[0.0, 3.0], [5.0, 0.0]])
    assert pairwise_mcc(own, other) == pytest.approx((1.0 + 0.6) / 2)
    assert pairwise_mcc(other, own) == pytest.approx(0.8)


def test_pairwise_mcc_of_permuted_flipped_and_of_missing_latents() -> None:
    generator = torch.Generator().manual_seed(3)
    own = torch.randn(30, 8, generator=generator)
    signs = torch.where(torch.rand(30, 1, generator=generator) < 0.5, -3.0, 0.2)
    order = torch.randperm(30, generator=generator)
    assert pairwise_mcc(own, (signs * own)[order]) == pytest.approx(1.0)
    assert pairwise_mcc(own[:11], own[order]) == pytest.approx(1.0)
    assert pairwise_mcc(own, torch.randn(30, 8, generator=generator)) < 0.8
    assert pairwise_mcc(torch.zeros(2, 2), torch.eye(2)) == 0.0
    assert pairwise_mcc(own[:0], own) != pairwise_mcc(own[:0], own)
    with pytest.raises(ValueError, match="not finite"):
        pairwise_mcc(own, own * float("nan"))
