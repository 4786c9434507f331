"""A block of a crosscoder's latents: its rows are those of the whole one, however many blocks there are."""

from __future__ import annotations

import pytest
import torch

from crossdiff.core.crosscoder import LATENT_CHUNK, Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.shard import (
    CrosscoderShard,
    Shard,
    largest_of_shards,
    mean_over_shards,
    n_latents_of_all,
    sum_over_shards,
)


@pytest.mark.parametrize("n_latents", [12, 3 * LATENT_CHUNK + 6])
@pytest.mark.parametrize("initial_decoders", ["equal", "independent"])
def test_a_block_starts_with_the_rows_of_the_whole_dictionary(n_latents: int, initial_decoders) -> None:
    settings = DictionarySettings(n_latents=n_latents, initial_decoders=initial_decoders)
    whole = Crosscoder(settings, n_models=2, d_model=3)
    bias = torch.arange(6.0).view(2, 3)
    whole.initialise_(torch.Generator().manual_seed(5), decoder_bias=bias)
    for index in range(3):
        own = CrosscoderShard(settings, shard=Shard(index, 3, n_latents), n_models=2, d_model=3)
        own.initialise_(torch.Generator().manual_seed(5), decoder_bias=bias)
        for name in ("encoder", "encoder_bias", "decoder"):
            torch.testing.assert_close(
                getattr(own, name), getattr(whole, name)[own.shard.rows], rtol=1e-6, atol=0
            )
        assert torch.equal(own.decoder_bias, bias)
        assert (own.n_latents, n_latents_of_all(own)) == (n_latents // 3, n_latents)
        copied = CrosscoderShard.of(whole, own.shard)
        assert torch.equal(copied.decoder, whole.decoder[own.shard.rows])


def test_a_whole_crosscoder_has_nobody_to_add_up_with() -> None:
    whole = Crosscoder(DictionarySettings(n_latents=4), n_models=2, d_model=3)
    assert sum_over_shards(whole, [1, 2]) == [1, 2]
    assert mean_over_shards(whole, [0.5]) == [0.5]
    assert n_latents_of_all(whole) == 4
    values = torch.tensor([3.0, 1.0])
    assert largest_of_shards(whole, values, count=1, limit=2) is values


def test_of_all_blocks_values_the_largest_positive_ones_are_kept() -> None:
    settings = DictionarySettings(n_latents=4)
    own = CrosscoderShard(settings, shard=Shard(0, 1, 4), n_models=2, d_model=3)
    found = largest_of_shards(own, torch.tensor([3.0, 1.0, 2.0]), count=2, limit=5)
    assert sorted(found.tolist()) == [2.0, 3.0]
    assert largest_of_shards(own, torch.tensor([3.0]), count=2, limit=5).tolist() == [3.0]
