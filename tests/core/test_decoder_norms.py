import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.decoder_norms import (
    decoder_norms,
    delta_norm,
    gram,
    random_like,
    raw_directions,
    renormalised,
)
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.normaliser import Normaliser
from tests.scaling_artifacts import random_crosscoder


@pytest.mark.parametrize(
    ("base", "tuned", "expected"), [(0.0, 2.0, 1.0), (2.0, 0.0, 0.0), (3.0, 3.0, 0.5), (1.0, 2.0, 0.75)]
)
def test_delta_norm_is_one_for_tuned_only_and_zero_for_base_only(base, tuned, expected) -> None:
    assert float(delta_norm(torch.tensor([base]), torch.tensor([tuned]))) == pytest.approx(expected)


@given(st.floats(0.01, 10), st.floats(0.01, 10))
def test_delta_norm_mirrors_when_the_models_are_exchanged(base: float, tuned: float) -> None:
    first, second = torch.tensor([base]), torch.tensor([tuned])
    forward, back = delta_norm(first, second), delta_norm(second, first)
    assert float(forward + back) == pytest.approx(1.0, abs=1e-6)


def test_a_latent_without_directions_has_no_delta_norm() -> None:
    assert bool(delta_norm(torch.zeros(1), torch.zeros(1)).isnan())


def test_norms_and_cosines_of_a_crosscoder() -> None:
    crosscoder = Crosscoder(DictionarySettings(n_latents=1), n_models=3, d_model=2)
    with torch.no_grad():
        crosscoder.decoder.copy_(torch.tensor([[[3.0, 0.0], [9.0, 9.0], [3.0, 4.0]]]))
    found = decoder_norms(crosscoder, base=0, tuned=2)
    assert found.norm.flatten().tolist() == [3.0, 5.0]
    assert float(found.cosine) == pytest.approx(0.6)


def test_a_difference_dictionary_has_no_norms_to_compare() -> None:
    crosscoder = Crosscoder(DictionarySettings(n_latents=1, architecture="diff_sae"), n_models=1, d_model=2)
    with pytest.raises(ValueError, match="no norms to compare"):
        decoder_norms(crosscoder)


def test_a_raw_direction_is_what_a_code_of_one_adds_to_the_reconstruction() -> None:
    crosscoder = Crosscoder(DictionarySettings(n_latents=2), n_models=2, d_model=2)
    with torch.no_grad():
        crosscoder.decoder[0] = torch.tensor([[1.0, 0.0], [3.0, 0.0]])
        crosscoder.normaliser.scale.copy_(torch.tensor([2.0, 4.0]))
        crosscoder.normaliser.mean.fill_(7.0)
    assert raw_directions(crosscoder)[0].tolist() == [[0.5, 0.0], [0.75, 0.0]]  # 1/2 and 3/4
    code = torch.tensor([[1.0, 0.0]])
    added = crosscoder.decode(code) - crosscoder.decode(torch.zeros_like(code))
    assert torch.allclose(added[0], raw_directions(crosscoder)[0])


def test_random_vectors_have_the_length_and_come_back_with_their_seeds() -> None:
    vector = torch.tensor([3.0, 4.0, 0.0])
    drawn = random_like(vector, n_draws=4, seed=(1, 2))
    assert torch.allclose(drawn.norm(dim=1), torch.full((4,), 5.0))
    assert torch.equal(drawn, random_like(vector, n_draws=4, seed=(1, 2)))
    assert not torch.allclose(drawn, random_like(vector, n_draws=4, seed=(1, 3)))
    many = random_like(vector, n_draws=4000, seed=(0, 0))
    assert (many.mean(dim=0).abs() < 0.25).all()  # no preferred direction: 5 / sqrt(3 * 4000) = 0.05


def test_gram_holds_squared_norms_on_its_diagonal() -> None:
    crosscoder = random_crosscoder(40, 6, seed=0)
    found = gram(crosscoder.decoder)
    norms = crosscoder.decoder.detach().double().norm(dim=2).square()
    assert torch.allclose(torch.diagonal(found), norms)
    assert torch.equal(found[0, 1], found[1, 0])


def test_two_families_have_norms_and_no_cosine() -> None:
    crosscoder = random_crosscoder(8, 6, seed=0)
    known = decoder_norms(crosscoder)
    crosscoder.metadata = {"two_families": True}
    found = decoder_norms(crosscoder)
    assert found.cosine.isnan().all()
    assert torch.equal(found.delta_norm, known.delta_norm)


def test_codes_and_reconstructions_stay_in_another_normalised_space() -> None:
    generator = torch.Generator().manual_seed(3)
    old = random_crosscoder(32, 8, seed=1)
    old.normaliser.scale.copy_(torch.tensor([0.5, 0.8]))
    old.normaliser.mean.copy_(torch.randn(2, 8, generator=generator))
    other = Normaliser(2, 8)
    other.scale.copy_(torch.tensor([1.7, 0.3]))
    other.mean.copy_(torch.randn(2, 8, generator=generator))
    new = renormalised(old, other, old.settings)
    x = torch.randn(50, 2, 8, generator=generator, dtype=torch.float64)
    code, expected = (each.double().encode(x, threshold=0.0) for each in (new, old))
    assert (expected > 0).any()
    torch.testing.assert_close(code, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(new.decode(code), old.decode(expected), rtol=1e-5, atol=1e-5)
    assert bool(new.threshold.isnan())
