from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.delta import decoded_difference, difference, kept, partitions, set_ratio_, smallest
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.sparsity import L1, BatchTopK, check_fits


def delta(n_latents: int = 4, **options) -> DictionarySettings:
    return DictionarySettings(n_latents=n_latents, architecture="delta", **options)


def test_k_is_shared_out_and_each_partition_keeps_one_at_least() -> None:
    def shares(k: int, **options) -> list[tuple[int, int, int]]:
        return [(p.latents.start, p.latents.stop, p.k) for p in partitions(delta(10, **options), k=k)]

    assert shares(8) == [(0, 1, 2), (1, 10, 6)]
    assert shares(2, delta_share=0.5) == [(0, 5, 1), (5, 10, 1)]
    assert shares(4, delta_share=0.99, delta_k_share=0.99) == [(0, 9, 3), (9, 10, 1)]


def test_each_partition_keeps_its_own_largest_codes() -> None:
    scaled = torch.tensor([[0.1, 9.0, 8.0, 7.0], [0.3, 1.0, 6.0, 2.0]])
    mask = kept(BatchTopK(k=2), scaled, delta(), k=2)  # one latent and three, one code per token each
    assert mask.int().tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]


def test_the_difference_reads_the_first_partition_alone() -> None:
    decoder = torch.tensor([[[1.0, 0.0], [3.0, 1.0]], *[[[5.0, 5.0], [0.0, 0.0]]] * 3])
    decoded = decoded_difference(torch.tensor([[2.0, 1.0, 1.0, 1.0]]), decoder, delta())
    assert decoded.tolist() == [[4.0, 2.0]]
    assert difference(torch.tensor([[[1.0, 2.0], [4.0, 1.0]]])).tolist() == [[3.0, -1.0]]


def test_thresholds_differ_by_their_ratio_also_after_saving(tmp_path: Path) -> None:
    crosscoder = Crosscoder(delta(2, code_norm="none"), n_models=2, d_model=1)
    crosscoder.encoder.data = torch.tensor([[[1.0], [0.0]], [[0.0], [1.0]]])
    crosscoder.decoder.data.fill_(1)
    crosscoder.threshold.fill_(2.0)
    set_ratio_(crosscoder, 1.0, 2.0)
    x = torch.tensor([[[1.5], [1.5]], [[0.5], [2.5]]])
    crosscoder.save(tmp_path)
    for read in (crosscoder, Crosscoder.load(tmp_path)):
        assert read.encode(x).tolist() == [[1.5, 0.0], [0.0, 2.5]]
        assert read.encode_sparse(x).dense().tolist() == [[1.5, 0.0], [0.0, 2.5]]
    for unknown in (math.nan, 0.0):
        set_ratio_(crosscoder, unknown, 2.0)
    assert float(crosscoder.delta_ratio) == 0.5  # type: ignore[arg-type]


def test_the_smallest_code_of_a_partition_without_codes_is_unknown() -> None:
    least, least_delta = smallest(torch.tensor([3.0, 2.0]), torch.tensor([False, False]))
    assert float(least) == 2
    assert math.isnan(least_delta)


def test_a_sparsity_without_k_is_refused() -> None:
    for sparsity in (L1(penalty=1.0), BatchTopK(k=1)):
        with pytest.raises(ValueError, match="choose sparsity=batch_topk"):
            check_fits(sparsity, n_latents=8, architecture="delta")
    check_fits(BatchTopK(k=2), n_latents=8, architecture="delta")
