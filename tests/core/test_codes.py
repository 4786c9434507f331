"""Products at active entries equal those of full matrices."""

from __future__ import annotations

import pytest
import torch

from crossdiff.core import crosscoder as module
from crossdiff.core.codes import CodeHistogram, code_norm, projections
from crossdiff.core.crosscoder import Crosscoder
from tests.scaling_artifacts import random_crosscoder


@pytest.fixture
def crosscoder() -> Crosscoder:
    return random_crosscoder(40, 6, seed=0)


@pytest.fixture
def x() -> torch.Tensor:
    return 2 * torch.randn(301, 2, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("gated", [False, True])
def test_encode_normalised_has_the_entries_of_encode_sparse(
    crosscoder: Crosscoder, x: torch.Tensor, monkeypatch: pytest.MonkeyPatch, gated: bool
) -> None:
    monkeypatch.setattr(module, "LATENT_CHUNK", 16)
    monkeypatch.setattr(module, "TOKEN_CHUNK", 100)
    if gated:
        crosscoder.log_gate = torch.nn.Parameter(torch.zeros(40))
        crosscoder.threshold.fill_(0.0)
    expected = crosscoder.encode_sparse(x)
    found = crosscoder.encode_normalised(crosscoder.normaliser.normalise(x))
    assert torch.equal(found.token, expected.token)
    assert torch.equal(found.latent, expected.latent)
    assert torch.allclose(found.value, expected.value, atol=1e-5)
    assert len(found) > 300


def test_no_token_gives_no_entry(crosscoder: Crosscoder, x: torch.Tensor) -> None:
    assert len(crosscoder.encode_normalised(x[:0])) == 0


def test_reconstruction_is_that_of_the_dense_code(crosscoder: Crosscoder, x: torch.Tensor) -> None:
    code = crosscoder.encode_sparse(x)
    assert torch.allclose(
        crosscoder.decode_normalised(code), crosscoder.decode_normalised(code.dense()), atol=1e-5
    )


def test_projections_are_those_of_the_full_product_at_active_entries(
    crosscoder: Crosscoder, x: torch.Tensor
) -> None:
    code = crosscoder.encode_sparse(x)
    rows = torch.cat([x, 2 * x[:, :1]], dim=1)
    full = torch.einsum("trd,lpd->tlrp", rows, crosscoder.decoder.detach())
    expected = full[code.token, code.latent]
    assert torch.allclose(projections(rows, code, crosscoder.decoder.detach()), expected, atol=1e-4)


def test_codes_fall_into_half_octaves() -> None:
    """1 and 1.4 lie below sqrt(2), 1.5 and 1.9 above; 4 is two doublings on."""
    histogram = CodeHistogram.empty(2)
    histogram.add(torch.tensor([[1.0, 0.0], [1.4, 0.0], [1.5, 0.0], [1.9, 0.0]]))
    histogram.add(torch.tensor([[4.0, 0.0], [0.0, 0.0]]))
    found = histogram.of(0)
    assert found is not None
    assert found["edges"] == [1.0, 1.41421, 2.0, 2.82843, 4.0, 5.65685]
    assert found["counts"] == [2, 2, 0, 0, 1]
    assert histogram.of(1) is None


def test_what_lies_outside_is_counted_in_the_end_bins() -> None:
    histogram = CodeHistogram.empty(1)
    histogram.add(torch.tensor([[1e-9], [1e9]]))
    assert int(histogram.counts[0, 0]) == int(histogram.counts[0, -1]) == 1


def test_code_norms_of_a_direction_with_norms_3_and_4() -> None:
    decoder = torch.tensor([[[3.0, 0.0], [0.0, 4.0]]])
    expected = {"sum": 7.0, "concat": 5.0, "mixed": 5.7, "none": 1.0}
    for kind, value in expected.items():
        assert float(code_norm(decoder, kind)) == pytest.approx(value)  # type: ignore[arg-type]
