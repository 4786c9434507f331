import pytest
import torch

from crossdiff.core.normaliser import Normaliser, geometric_median


def test_the_rms_norm_of_normalised_activations_is_the_target() -> None:
    x = torch.randn(5000, 2, 6) * torch.tensor([3.0, 50.0])[:, None] + 100
    wide = x.double()
    normaliser = Normaliser.from_statistics(wide.mean(0), wide.var(0, unbiased=False), target_rms=4.0)
    xn = normaliser.normalise(x)
    torch.testing.assert_close(xn.square().sum(2).mean(0).sqrt(), torch.tensor([4.0, 4.0]), rtol=1e-4, atol=0)
    torch.testing.assert_close(normaliser.denormalise(xn), x, rtol=1e-5, atol=1e-4)


def test_statistics_that_cannot_scale_are_refused() -> None:
    mean = torch.zeros(2, 3, dtype=torch.float64)
    variance = torch.ones(2, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"model\(s\) \[1\] have variance 0"):
        Normaliser.from_statistics(mean, variance * torch.tensor([1, 0])[:, None], target_rms=1.0)
    with pytest.raises(ValueError, match="NaN or infinite"):
        Normaliser.from_statistics(mean / 0, variance, target_rms=1.0)


def test_the_geometric_median_ignores_a_far_outlier() -> None:
    square = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    torch.testing.assert_close(geometric_median(square), torch.tensor([0.5, 0.5]))
    far = torch.cat([square.repeat(5, 1), torch.tensor([[1e6, 1e6]])])
    assert bool((geometric_median(far, n_steps=500) - 0.5).abs().max() < 0.2)
