"""Intervals over documents, by hand; their coverage is measured in tests/bench/test_coverage.py."""

from __future__ import annotations

import pytest
import torch

from crossdiff.core.jackknife import freedom_by_energy, jackknife, student

EQUAL = torch.tensor([100.0], dtype=torch.float64)
"""Groups of equal energy: no limit beside G - 1."""


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
