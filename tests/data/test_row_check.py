"""Check sums of rows: a flipped bit anywhere is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from crossdiff.data.row_check import refuse_altered, row_check


def test_a_row_of_four_known_words_has_their_sum() -> None:
    x = torch.tensor([[1, 2, 3, 4], [-1, 0, 0, 1]], dtype=torch.int64).view(torch.float64)
    assert row_check(x).tolist() == [10, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
@pytest.mark.parametrize("d_model", [7, 8])
def test_every_single_flipped_bit_changes_the_sum_of_its_row_alone(dtype: torch.dtype, d_model: int) -> None:
    x = (torch.randn(3, d_model, generator=torch.Generator().manual_seed(0)) * 50).to(dtype)
    check = row_check(x)
    raw = x.view(torch.uint8)
    for byte in range(raw.shape[1]):
        for bit in range(8):
            raw[1, byte] ^= 1 << bit
            assert (row_check(x) != check).tolist() == [False, True, False]
            raw[1, byte] ^= 1 << bit


def test_the_scale_of_an_int8_row_is_checked_too() -> None:
    x, scale = torch.ones(1, 8, dtype=torch.int8), torch.tensor([0.5])
    check = row_check(x, scale)
    for bit in range(32):
        flipped = (scale.view(torch.int32) ^ (1 << bit if bit < 31 else -(1 << 31))).view(torch.float32)
        assert row_check(x, flipped) != check


def test_the_message_names_file_row_and_way_out() -> None:
    x = torch.zeros(2, 4)
    path = Path("store/harvest/key/layer_3/shard_00001.safetensors")
    with pytest.raises(ValueError, match=r"shard_00001.* 1 rows differ .* row 101; remove .*key and run"):
        refuse_altered(x, scale=None, check=torch.tensor([0, 5]), path=path, first=100)
