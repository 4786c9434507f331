"""Products at active entries equal those of full matrices."""

from __future__ import annotations

import pytest
import torch

from crossdiff.core import active_products
from crossdiff.core.active_products import active_code, gram, projections, reconstruct
from crossdiff.core.crosscoder import Crosscoder
from tests.scaling_artifacts import random_crosscoder


@pytest.fixture
def crosscoder() -> Crosscoder:
    return random_crosscoder(40, 6, seed=0)


@pytest.fixture
def x() -> torch.Tensor:
    return 2 * torch.randn(301, 2, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("gated", [False, True])
def test_active_code_has_the_entries_of_encode_sparse(
    crosscoder: Crosscoder, x: torch.Tensor, monkeypatch: pytest.MonkeyPatch, gated: bool
) -> None:
    monkeypatch.setattr(active_products, "LATENT_CHUNK", 16)
    monkeypatch.setattr(active_products, "TOKENS", 100)
    if gated:
        crosscoder.log_gate = torch.nn.Parameter(torch.zeros(40))
        crosscoder.threshold.fill_(0.0)
    expected = crosscoder.encode_sparse(x)
    found = active_code(crosscoder, crosscoder.normaliser.normalise(x))
    assert torch.equal(found.token, expected.token)
    assert torch.equal(found.latent, expected.latent)
    assert torch.allclose(found.value, expected.value, atol=1e-5)
    assert len(found) > 300


def test_no_token_gives_no_entry(crosscoder: Crosscoder, x: torch.Tensor) -> None:
    assert len(active_code(crosscoder, x[:0])) == 0


def test_reconstruction_is_that_of_the_dense_code(crosscoder: Crosscoder, x: torch.Tensor) -> None:
    code = crosscoder.encode_sparse(x)
    assert torch.allclose(
        reconstruct(crosscoder, code), crosscoder.decode_normalised(code.dense()), atol=1e-5
    )


def test_projections_are_those_of_the_full_product_at_active_entries(
    crosscoder: Crosscoder, x: torch.Tensor
) -> None:
    code = crosscoder.encode_sparse(x)
    rows = torch.cat([x, 2 * x[:, :1]], dim=1)
    full = torch.einsum("trd,lpd->tlrp", rows, crosscoder.decoder.detach())
    expected = full[code.token, code.latent]
    assert torch.allclose(projections(rows, code, crosscoder.decoder.detach()), expected, atol=1e-4)


def test_gram_holds_squared_norms_on_its_diagonal(crosscoder: Crosscoder) -> None:
    found = gram(crosscoder.decoder)
    norms = crosscoder.decoder.detach().double().norm(dim=2).square()
    assert torch.allclose(torch.diagonal(found), norms)
    assert torch.equal(found[0, 1], found[1, 0])
