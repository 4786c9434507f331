"""A crosscoder in several files: written in blocks, read whole or by rows, damage refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from crossdiff.core import shard_files
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.shard import CrosscoderShard, Shard


def written(folder: Path, *, n_shards: int = 3, prefix: str = "") -> Crosscoder:
    whole = Crosscoder(DictionarySettings(n_latents=12), n_models=2, d_model=3)
    whole.initialise_(torch.Generator().manual_seed(5))
    whole.threshold.fill_(0.25)
    names = [f"part_{index}.safetensors" for index in range(n_shards)]
    for index, name in enumerate(names):
        own = CrosscoderShard.of(whole, Shard(index, n_shards, 12))
        own.threshold.fill_(0.25)
        tensors = {prefix + key: value for key, value in own.state_dict().items()}
        shard_files.write_block(folder / name, tensors, state=f"block {index}")
    shard_files.write_index(
        folder, names, dictionary=whole.settings, n_models=2, d_model=3, prefix=prefix, about={"step": 7}
    )
    return whole


@pytest.mark.parametrize("prefix", ["", "state_dict.crosscoder."])
def test_load_puts_the_blocks_together(tmp_path: Path, prefix: str) -> None:
    whole = written(tmp_path, prefix=prefix)
    found = Crosscoder.load(tmp_path)
    assert found.settings == whole.settings
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value, rtol=0, atol=0, equal_nan=True)
    assert shard_files.read_index(tmp_path)["about"] == {"step": 7}
    assert shard_files.read_state(tmp_path / "part_1.safetensors") == "block 1"


def test_rows_are_read_over_the_borders_of_files(tmp_path: Path) -> None:
    whole = written(tmp_path)
    files = [tmp_path / name for name in shard_files.read_index(tmp_path)["files"]]
    for rows in (slice(0, 12), slice(2, 9), slice(4, 8)):
        assert torch.equal(shard_files.read_rows(files, "decoder", rows), whole.decoder[rows])


def test_a_block_is_what_safetensors_itself_reads(tmp_path: Path) -> None:
    tensors = {
        "a": torch.arange(6.0).view(2, 3).T,  # not contiguous
        "b": torch.tensor(3, dtype=torch.int64),
        "c": torch.tensor([True, False]),
        "d": torch.zeros(0, 2, dtype=torch.bfloat16),
        "e": torch.tensor([1, 255], dtype=torch.uint8),
    }
    shard_files.write_block(tmp_path / "x.safetensors", tensors)
    found = load_file(tmp_path / "x.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_damage_is_named(tmp_path: Path) -> None:
    written(tmp_path)
    part, index = tmp_path / "part_2.safetensors", tmp_path / "index.json"
    whole = part.read_bytes()
    part.write_bytes(whole[:-5])
    with pytest.raises(ValueError, match=r"part_2.safetensors is missing, cut or altered"):
        Crosscoder.load(tmp_path)
    part.unlink()
    with pytest.raises(ValueError, match=r"part_2.safetensors is missing, cut or altered"):
        Crosscoder.load(tmp_path)
    record = json.loads(index.read_text())
    index.write_text(json.dumps(record | {"files": ["../part_2.safetensors"]}))
    with pytest.raises(ValueError, match="no file beside it"):
        Crosscoder.load(tmp_path)
    part.write_bytes(whole)
    index.write_text(json.dumps(record | {"d_model": 5}))
    with pytest.raises(ValueError, match="other sizes than index.json says"):
        Crosscoder.load(tmp_path)
    index.write_text(index.read_text()[:40])
    with pytest.raises(ValueError, match="is cut, or no index of shards"):
        Crosscoder.load(tmp_path)


def test_a_crosscoder_in_one_file_is_read_beside_the_index_of_another_tool(tmp_path: Path) -> None:
    whole = written(tmp_path)
    whole.save(tmp_path / "one")
    (tmp_path / "one" / "index.json").write_text('{"pages": []}')
    assert torch.equal(Crosscoder.load(tmp_path / "one").decoder, whole.decoder)
