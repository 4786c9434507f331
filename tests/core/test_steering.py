"""Directions in raw units by hand, and random vectors as long as they."""

import torch

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.steering import random_like, raw_directions


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
