"""Intervals over documents, by hand; their coverage is measured in tests/bench/test_coverage.py."""

from __future__ import annotations

import pytest
import torch

from crossdiff.core.jackknife import T_95, jackknife, student


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    # groups 1, 2, 3, 4, 5 of one value each: mean 3, se = sqrt(2.5 / 5); leave-one-out means by hand
    without = torch.tensor([[3.5], [3.25], [3.0], [2.75], [2.5]], dtype=torch.float64)
    low, high = jackknife(torch.tensor([3.0], dtype=torch.float64), without, used=5, fired=torch.tensor([5]))
    deviations = torch.tensor([0.25, 0.0625, 0.0, 0.0625, 0.25]).double()
    freedom = 3 * deviations.sum() ** 2 / deviations.square().sum()
    assert float(freedom) > 4  # so at most G - 1 = 4
    half = T_95[3] * 0.5**0.5
    assert float(low) == pytest.approx(3 - half, abs=1e-9)
    assert float(high) == pytest.approx(3 + half, abs=1e-9)


def test_too_few_groups_give_no_interval() -> None:
    without = torch.zeros(20, 1, dtype=torch.float64)
    low, high = jackknife(torch.zeros(1, dtype=torch.float64), without, used=20, fired=torch.tensor([4]))
    assert low.isnan().all()
    assert high.isnan().all()


def test_student_passes_through_the_tabled_quantiles_and_falls_between_them() -> None:
    found = student(torch.arange(1, 20, dtype=torch.float64))
    assert torch.allclose(found, torch.tensor(T_95, dtype=torch.float64))
    between = student(torch.tensor([4.5], dtype=torch.float64))
    assert float(between) == pytest.approx(2.659, abs=0.01)  # scipy.stats.t.ppf(0.975, 4.5)


def test_a_group_without_documents_does_not_count() -> None:
    without = torch.tensor([[3.5], [3.25], [3.0], [2.75], [2.5]], dtype=torch.float64)
    padded = torch.cat([without, torch.full((15, 1), 3.0, dtype=torch.float64)])
    estimate, fired = torch.tensor([3.0], dtype=torch.float64), torch.tensor([5])
    for name, other in zip(
        jackknife(estimate, without, used=5, fired=fired),
        jackknife(estimate, padded, used=5, fired=fired),
        strict=True,
    ):
        assert torch.allclose(name, other)
