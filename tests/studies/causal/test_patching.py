"""The patch of the causal check, worked out by hand, and its intervals."""

from __future__ import annotations

import math

import pytest
import torch

from crossdiff.core.codes import SparseCode
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.studies.causal.evaluation import gap_closed
from crossdiff.studies.causal.patching import (
    answer_places,
    difference_directions,
    divergence,
    matched_sets,
    patches,
    sets_of,
)


def two_latents() -> Crosscoder:
    """Directions (base, tuned) of latent 0: (1, 0), (3, 0); of latent 1: (0, 2), (0, 0); scales 2 and 4."""
    crosscoder = Crosscoder(DictionarySettings(n_latents=2), n_models=2, d_model=2)
    with torch.no_grad():
        crosscoder.decoder[0] = torch.tensor([[1.0, 0.0], [3.0, 0.0]])
        crosscoder.decoder[1] = torch.tensor([[0.0, 2.0], [0.0, 0.0]])
        crosscoder.normaliser.scale.copy_(torch.tensor([2.0, 4.0]))
        crosscoder.normaliser.mean.fill_(7.0)  # must not enter
    return crosscoder


def test_the_patch_is_the_difference_of_the_raw_directions_times_the_code() -> None:
    # 3/4 - 1/2 = 0.25 and 0/4 - 2/2 = -1
    directions = difference_directions(two_latents())
    assert directions.tolist() == [[0.25, 0.0], [0.0, -1.0]]
    code = SparseCode(torch.tensor([0, 0, 2]), torch.tensor([0, 1, 1]), torch.tensor([4.0, 3.0, 5.0]), 3, 2)
    lists = [torch.tensor([0]), torch.tensor([], dtype=torch.int64), torch.tensor([0, 1])]
    found = patches(code, directions, sets_of(lists, n_latents=2))
    assert found[0].tolist() == [[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    assert found[1].abs().sum() == 0
    assert found[2].tolist() == [[1.0, -3.0], [0.0, 0.0], [0.0, -5.0]]


def test_all_latents_turn_one_reconstruction_into_the_other_up_to_means_and_biases() -> None:
    generator = torch.Generator().manual_seed(0)
    crosscoder = two_latents()
    code = torch.rand(6, 2, generator=generator)
    token, latent = code.nonzero(as_tuple=True)
    sparse = SparseCode(token, latent, code[token, latent], 6, 2)
    patch = patches(sparse, difference_directions(crosscoder), torch.ones(1, 2, dtype=torch.bool))[0]
    x_hat, nothing = crosscoder.decode(code), crosscoder.decode(torch.zeros_like(code))
    assert torch.allclose(patch, (x_hat - nothing)[:, 1] - (x_hat - nothing)[:, 0], atol=1e-6)


def test_divergence_by_hand() -> None:
    tuned = torch.tensor([[0.9, 0.1]]).log()
    patched = torch.tensor([[[0.5, 0.5]], [[0.9, 0.1]]]).log()
    found = divergence(tuned, patched)
    expected = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    assert found[:, 0].tolist() == pytest.approx([expected, 0.0], abs=1e-6)


def test_the_share_closed_is_one_minus_the_ratio_of_mean_divergences() -> None:
    kl = torch.tensor([[4.0, 8.0, 12.0], [1.0, 2.0, 3.0], [4.0, 8.0, 12.0]], dtype=torch.float64)
    tokens = torch.tensor([2.0, 4.0, 6.0], dtype=torch.float64)
    figures, resampled = gap_closed(kl, tokens, draws=200, generator=torch.Generator().manual_seed(0))
    assert figures[:, 0].tolist() == [2.0, 0.5, 2.0]
    assert figures[:, 3].tolist() == [0.0, 0.75, 0.0]
    # every document has the same ratios, so resampling changes nothing
    assert torch.allclose(figures[1, 1:3], torch.tensor([0.5, 0.5], dtype=torch.float64))
    assert torch.allclose(resampled[:, 1], torch.full((200,), 0.75, dtype=torch.float64))


def test_the_interval_of_the_mean_is_that_of_resampled_documents() -> None:
    generator = torch.Generator().manual_seed(1)
    kl = torch.stack([torch.ones(400), 1 + torch.randn(400, generator=generator)]).double()
    figures, _ = gap_closed(kl, torch.ones(400).double(), draws=2000, generator=generator)
    half = float(figures[1, 2] - figures[1, 1]) / 2
    assert half == pytest.approx(1.96 * float(kl[1].std()) / 20, rel=0.1)


TEXT, BOS, TEMPLATE, SPECIAL = 0, 1, 2, 3


def places(*kinds: int, first: int = 10) -> list[int]:
    return answer_places(torch.tensor(kinds, dtype=torch.uint8), first=first).tolist()


def test_the_last_message_of_a_chat_is_the_answer_and_its_places_predict_its_tokens() -> None:
    chat = (BOS, TEMPLATE, TEMPLATE, TEXT, TEXT, TEMPLATE, TEMPLATE, TEXT, SPECIAL, TEXT, TEMPLATE)
    assert places(*chat) == [6, 7, 8]  # predict tokens 7, 8, 9
    assert places(*chat, first=2) == [6, 7]


def test_text_and_chats_cut_before_the_answer_have_none() -> None:
    assert places(BOS, TEXT, TEXT, TEXT) == []
    assert places(BOS, TEMPLATE, TEXT, TEXT) == []
    assert places(TEMPLATE, TEMPLATE) == []


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
