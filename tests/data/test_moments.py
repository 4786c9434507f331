"""Moments: exact merging, and float64 where float32 fails."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossdiff.data.moments import N_GROUPS, N_KINDS, Moments, row_groups


def test_moments_of_one_two_three_are_two_and_two_thirds() -> None:
    moments = Moments.of(torch.tensor([[1.0], [2.0], [3.0]]), torch.zeros(3, dtype=torch.long))
    assert moments.count[0] == 3
    assert moments.mean[0, 0] == 2
    torch.testing.assert_close(moments.variance()[0, 0], torch.tensor(2 / 3, dtype=torch.float64))
    assert moments.variance()[1].isnan().all()


@settings(max_examples=30, deadline=None)
@given(cut=st.integers(0, 50), shift=st.sampled_from([0.0, 1e4, -1e6]))
def test_merging_two_halves_gives_the_moments_of_the_whole(cut: int, shift: float) -> None:
    generator = torch.Generator().manual_seed(cut)
    x = torch.randn(50, 3, generator=generator, dtype=torch.float64) + shift
    group = torch.randint(0, N_GROUPS, (50,), generator=generator)
    whole = Moments.of(x, group)
    merged = Moments.of(x[:cut], group[:cut]).merge(Moments.of(x[cut:], group[cut:]))
    torch.testing.assert_close(merged.count, whole.count)
    torch.testing.assert_close(merged.mean, whole.mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(merged.deviation, whole.deviation, rtol=1e-7, atol=1e-7)


def test_a_small_spread_on_a_large_mean_survives() -> None:
    x = torch.tensor([[4096.0], [4096.5], [4097.0]]).repeat(30_000, 1)
    pooled = Moments.of(x, torch.zeros(len(x), dtype=torch.long)).pooled(
        torch.ones(N_GROUPS, dtype=torch.bool)
    )
    torch.testing.assert_close(pooled.variance()[0, 0], torch.tensor(1 / 6, dtype=torch.float64))


def test_groups_are_kinds_and_held_out_kinds() -> None:
    groups = row_groups(torch.tensor([0, 2, 3]), torch.tensor([False, True, False]))
    assert groups.tolist() == [0, N_KINDS + 2, 3]


def test_state_survives_as_named_tensors() -> None:
    moments = Moments.of(torch.randn(9, 4), torch.arange(9) % 3)
    again = Moments.from_tensors(moments.tensors())
    assert torch.equal(again.deviation, moments.deviation)
