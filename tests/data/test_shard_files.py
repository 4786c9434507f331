"""Shard files: ordinary safetensors, the same bytes every time, damage noticed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from crossdiff.data.shard_files import ShardFile, refuse_altered, row_check, write_shard

TENSORS = {
    "x": torch.arange(21).reshape(7, 3).bfloat16(),
    "norm": torch.arange(7.0),
    "moment": torch.ones(2, 3, dtype=torch.float64),
    "small": torch.arange(7, dtype=torch.int8),
}


def test_safetensors_reads_what_was_written_and_the_hash_is_the_files(tmp_path: Path) -> None:
    digest = write_shard(tmp_path / "a.safetensors", TENSORS, metadata={"layer": "3"})
    assert digest == hashlib.sha256((tmp_path / "a.safetensors").read_bytes()).hexdigest()
    for name, tensor in load_file(tmp_path / "a.safetensors").items():
        assert torch.equal(tensor, TENSORS[name])
    shard = ShardFile.open(tmp_path / "a.safetensors")
    assert shard.metadata["layer"] == "3"
    for name, tensor in TENSORS.items():
        assert torch.equal(shard.tensor(name), tensor)
        assert (shard.shape(name), shard.dtype(name)) == (tuple(tensor.shape), tensor.dtype)
    raw = (tmp_path / "a.safetensors").read_bytes()[shard.byte_offset("x") :][: 21 * 2]
    assert torch.equal(torch.frombuffer(bytearray(raw), dtype=torch.bfloat16).view(7, 3), TENSORS["x"])


def test_the_same_tensors_give_the_same_bytes_and_no_leftover(tmp_path: Path) -> None:
    digests = {write_shard(tmp_path / f"{n}.safetensors", TENSORS, metadata={}) for n in range(2)}
    assert len(digests) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.safetensors", "1.safetensors"]


@pytest.mark.parametrize("n_bytes", [0, 4, 2000, -1])
def test_a_cut_file_is_refused(tmp_path: Path, n_bytes: int) -> None:
    path = tmp_path / "layer_1" / "a.safetensors"
    path.parent.mkdir()
    write_shard(path, TENSORS, metadata={})
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.raises(ValueError, match=r"cut or altered.* run"):
        ShardFile.open(path)


def test_a_missing_file_and_a_foreign_one_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(ValueError, match=r"is missing; remove .* run the same command again"):
        ShardFile.open(tmp_path / "b.safetensors")
    save_file({"x": torch.zeros(2)}, tmp_path / "c.safetensors")
    with pytest.raises(ValueError, match=r"this crossdiff reads 'crossdiff.shard' version 2"):
        ShardFile.open(tmp_path / "c.safetensors")


def test_a_full_disk_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from crossdiff.data import shard_files

    def full(_handle: object, _part: memoryview) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shard_files, "_write_all", full)
    with pytest.raises(OSError, match="No space left"):
        write_shard(tmp_path / "a.safetensors", TENSORS, metadata={})
    assert not list(tmp_path.iterdir())


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
