"""Random sets of latents that match a chosen one."""

from __future__ import annotations

import pytest
import torch

from crossdiff.studies.causal.matched_sets import matched_sets


def spread(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(n, generator=generator, dtype=torch.float64).exp() for _ in "12")  # type: ignore[return-value]


def test_draws_are_of_equal_size_without_repeats_from_the_pool_and_within_tolerance() -> None:
    density, energy = spread(4000)
    chosen = torch.arange(0, 60)
    pool = torch.arange(60, 4000)
    found = matched_sets(
        chosen, pool, density=density, energy=energy, n_draws=20, generator=torch.Generator().manual_seed(1)
    )
    assert found.latents.shape == (20, 60)
    assert int(found.latents.min()) >= 60
    assert all(len(draw.unique()) == 60 for draw in found.latents)
    assert bool(found.within(0.2).all())
    assert len({tuple(draw.tolist()) for draw in found.latents}) == 20
    ratio = density[found.latents[3]] / density[chosen]
    alike = ((ratio.log().abs() <= torch.log(torch.tensor(1.2))).double()).mean()
    assert float(alike) >= float(found.alike[3]) > 0.7


def test_a_latent_without_its_like_is_counted_and_gets_the_nearest() -> None:
    density = torch.tensor([100.0, 1.0, 1.0, 40.0], dtype=torch.float64)
    found = matched_sets(
        torch.tensor([0, 1]),
        torch.tensor([2, 3]),
        density=density,
        energy=density,
        n_draws=2,
        generator=torch.Generator().manual_seed(0),
    )
    assert found.latents.tolist() == [[3, 2], [3, 2]]
    assert found.alike.tolist() == [0.5, 0.5]
    assert found.density_ratio.tolist() == pytest.approx([41 / 101] * 2)
    assert not bool(found.within(0.2).any())


def test_a_pool_smaller_than_the_set_is_refused() -> None:
    ones = torch.ones(3, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"2 latents are to be matched with 1 other alive ones"):
        matched_sets(
            torch.tensor([0, 1]), torch.tensor([2]), density=ones, energy=ones, n_draws=1,
            generator=torch.Generator(),
        )  # fmt: skip


def test_a_tighter_tolerance_is_tried_for_as_long() -> None:
    """One chosen latent of density 100: of 9 others only that of 101 is within 5 %, most within 20 %."""
    density = torch.tensor([100.0, 85, 88, 90, 110, 112, 115, 118, 119, 101], dtype=torch.float64)
    for tolerance, off in ((0.05, 0.01), (0.2, 0.19)):
        made = matched_sets(
            torch.tensor([0]), torch.arange(1, 10), density=density, energy=density, n_draws=20,
            generator=torch.Generator().manual_seed(0), tolerance=tolerance,
        )  # fmt: skip
        assert float((made.density_ratio - 1).abs().max()) <= off + 1e-9


def test_the_sums_are_held_against_the_tolerance_asked_for() -> None:
    """Draws whose latents match one by one within 5 %, but whose sums can miss by 4 %: tries go on."""
    chosen, pool = torch.arange(2), torch.arange(2, 12)
    density = torch.tensor([100.0, 100, *[104.0] * 8, 101, 99.0], dtype=torch.float64)
    made = matched_sets(
        chosen, pool, density=density, energy=density, n_draws=10,
        generator=torch.Generator().manual_seed(0), tolerance=0.045,
    )  # fmt: skip
    assert bool(made.within(0.045).all())
