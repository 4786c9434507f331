"""Intervals over documents: by hand, by matrices, by their coverage (also in bench/test_coverage.py)."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from crossdiff.core.jackknife import (
    MIN_GROUPS,
    degrees_of_freedom,
    freedom_by_energy,
    half_widths,
    jackknife,
    kept_share,
    student,
    variance_power,
)

EQUAL = torch.tensor([100.0], dtype=torch.float64)
"""Groups of equal energy: no limit beside G - 1."""
N_GROUPS = 20


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    # groups 1, 2, 3, 4, 5 of one value each: mean 3, se = sqrt(2.5 / 5); leave-one-out means by hand
    without = torch.tensor([[3.5], [3.25], [3.0], [2.75], [2.5]], dtype=torch.float64)
    low, high = jackknife(
        torch.tensor([3.0], dtype=torch.float64), without, used=5, fired=torch.tensor([5]), limit=EQUAL
    )
    deviations = torch.tensor([0.25, 0.0625, 0.0, 0.0625, 0.25]).double()
    freedom = 3 * deviations.sum() ** 2 / deviations.square().sum()
    assert float(freedom) > 4  # so at most G - 1 = 4
    half = 2.776 * 0.5**0.5
    assert float(low) == pytest.approx(3 - half, abs=1e-3)
    assert float(high) == pytest.approx(3 + half, abs=1e-3)


def test_too_few_groups_give_no_interval() -> None:
    without = torch.zeros(20, 1, dtype=torch.float64)
    low, high = jackknife(
        torch.zeros(1, dtype=torch.float64), without, used=20, fired=torch.tensor([4]), limit=EQUAL
    )
    assert low.isnan().all()
    assert high.isnan().all()


def test_student_gives_the_tabled_quantiles() -> None:
    found = student(torch.tensor([1.0, 4.0, 19.0], dtype=torch.float64))
    assert found.tolist() == pytest.approx([12.706, 2.776, 2.093], abs=1e-3)


def test_groups_of_unequal_energy_count_for_fewer() -> None:
    energy = torch.tensor([[1.0, 9.0], [1.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    assert freedom_by_energy(energy).tolist() == pytest.approx([3, 82**2 / 6562])


@pytest.mark.parametrize("skewed", [False, True])
@pytest.mark.parametrize("n_documents", [10, 29])
def test_intervals_hold_under_bursty_and_very_unequal_documents(n_documents: int, skewed: bool) -> None:
    """50-fold unequal documents whose tokens share an overlap; deviations alone gave 88 to 94 %."""
    generator = torch.Generator().manual_seed(0)
    shape, options = (n_documents, 8000), {"generator": generator, "dtype": torch.float64}
    length = 50 ** torch.rand(shape, **options)
    draws = -torch.rand(shape, **options).log() - 1 if skewed else torch.randn(shape, **options)
    group = torch.randint(0, 20, shape, generator=generator)
    energy, overlap = (
        torch.zeros(20, shape[1]).double().scatter_add_(0, group, part)
        for part in (length, length * draws + length.sqrt() * torch.randn(shape, **options))
    )
    without = (overlap.sum(0) - overlap) / (energy.sum(0) - energy)
    fired, limit = (energy > 0).sum(0), freedom_by_energy(energy)
    low, high = jackknife(overlap.sum(0) / energy.sum(0), without, used=20, fired=fired, limit=limit)
    known = ~low.isnan()
    assert 0.93 <= float(((low <= 0) & (high >= 0))[known].double().mean()) <= 0.975


def test_a_group_without_documents_does_not_count() -> None:
    without = torch.tensor([[3.5], [3.25], [3.0], [2.75], [2.5]], dtype=torch.float64)
    padded = torch.cat([without, torch.full((15, 1), 3.0, dtype=torch.float64)])
    estimate, fired = torch.tensor([3.0], dtype=torch.float64), torch.tensor([5])
    for name, other in zip(
        jackknife(estimate, without, used=5, fired=fired, limit=EQUAL),
        jackknife(estimate, padded, used=5, fired=fired, limit=EQUAL),
        strict=True,
    ):
        assert torch.allclose(name, other)


def power(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def test_equal_groups_give_the_standard_error_of_their_mean() -> None:
    # values 1 to 5: mean 3, variance 2.5, standard error sqrt(2.5 / 5), t of 4 degrees of freedom 2.776
    energy = torch.ones(5, 1, dtype=torch.float64)
    residual = torch.arange(-2, 3, dtype=torch.float64)[:, None] / 5
    for p in (1.0, 1.5, 2.0):
        assert float(degrees_of_freedom(energy, power(p))) == pytest.approx(4)
        assert float(half_widths(residual, energy, power(p))) == pytest.approx(2.776 * 0.5**0.5, abs=1e-3)


@pytest.mark.parametrize("p", [1.0, 1.7, 2.0])
def test_closed_forms_equal_those_of_the_matrices(p: float) -> None:
    energy = torch.tensor([[1.0, 3.0], [2.0, 0.0], [9.0, 1.0], [4.0, 40.0]], dtype=torch.float64)
    kept, freedom = kept_share(energy, p), degrees_of_freedom(energy, power(p))
    for latent in range(2):
        weights = energy[:, latent]
        weights = weights[weights > 0]
        share, variance = weights / weights.sum(), weights**p
        maker = torch.eye(len(weights), dtype=torch.float64) - share[:, None]  # e_g - h_g sum e
        covariance = maker @ variance.diag() @ maker.T
        expected = covariance.diagonal() / variance
        assert torch.allclose(kept[energy[:, latent] > 0, latent], expected)
        scaled = covariance / (expected[:, None] * expected).sqrt()
        by_matrix = scaled.trace() ** 2 / (scaled @ scaled).trace()
        assert float(freedom[latent]) == pytest.approx(float(by_matrix))


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_group_with_all_but_a_billionth_of_the_energy_keeps_what_exact_fractions_say(place: int) -> None:
    weights = [Fraction(1), Fraction(2)]
    weights.insert(place, Fraction(10**10))
    total = sum(weights)
    for p in (1, 2):
        variances = [weight**p for weight in weights]
        exact = [
            float(1 - 2 * weight / total + (weight / total) ** 2 * sum(variances) / variance)
            for weight, variance in zip(weights, variances, strict=True)
        ]
        kept = kept_share(
            torch.tensor([[float(weight)] for weight in weights], dtype=torch.float64), float(p)
        )
        assert kept[:, 0].tolist() == pytest.approx(exact, rel=1e-12)
    assert exact[place] < 1e-18


def simulated(
    n_documents: int, *, shared: bool, skewed: bool = False, n: int = 8000
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(ratio, residual, energy) of latents whose true ratio is 0, in documents of 50-fold unequal length.

    The tokens of a document share an overlap, or differ each on its own.
    """
    generator = torch.Generator().manual_seed(0)
    shape, options = (n_documents, n), {"generator": generator, "dtype": torch.float64}
    length = 50 ** torch.rand(shape, **options)
    draws = -torch.rand(shape, **options).log() - 1 if skewed else torch.randn(shape, **options)
    overlaps = shared * length * draws + length.sqrt() * torch.randn(shape, **options)
    group = torch.randint(0, N_GROUPS, shape, generator=generator)
    energy, overlap = (
        torch.zeros(N_GROUPS, n).double().scatter_add_(0, group, part) for part in (length, overlaps)
    )
    ratio = overlap.sum(0) / energy.sum(0)
    without = (overlap.sum(0) - overlap) / (energy.sum(0) - energy)
    return ratio, (without - ratio) * (1 - energy / energy.sum(0)), energy


@pytest.mark.parametrize("skewed", [False, True])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("n_documents", [10, 29, 200])
def test_intervals_cover_under_very_unequal_documents(n_documents: int, shared: bool, skewed: bool) -> None:
    ratio, residual, energy = simulated(n_documents, shared=shared, skewed=skewed)
    half = half_widths(residual, energy, variance_power(residual, energy))
    known = (energy > 0).sum(0) >= MIN_GROUPS
    assert 0.93 <= float((ratio.abs() <= half)[known].double().mean()) <= 0.975


def test_the_power_tells_tokens_from_documents() -> None:
    alone, together = (simulated(29, shared=shared)[1:] for shared in (False, True))
    assert float(variance_power(*alone)) <= 1.1
    assert float(variance_power(*together)) >= 1.6


def test_few_or_empty_latents_leave_the_widest_power() -> None:
    _, residual, energy = simulated(29, shared=False, n=19)
    assert float(variance_power(residual, energy)) == 2
    assert float(variance_power(torch.zeros(20, 50).double(), torch.ones(20, 50).double())) == 2
    nothing = torch.full((20, 50), torch.nan, dtype=torch.float64)
    assert float(variance_power(nothing, torch.zeros(20, 50).double())) == 2
