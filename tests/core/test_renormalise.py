"""The same crosscoder in another normalised space."""

import torch

from crossdiff.core.normaliser import Normaliser
from crossdiff.core.renormalise import renormalised
from tests.scaling_artifacts import random_crosscoder


def test_codes_and_reconstructions_of_raw_activations_stay() -> None:
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
