"""What a plan says of weight files and heads before any step has run."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from crossdiff.models.pair import ModelPair, custom_pair
from crossdiff.pipeline import weight_checks
from crossdiff.pipeline.weight_checks import check_weights, head_notices
from tests.model_folders import save_model
from tests.models.test_unembedding import FAMILIES, saved


def pair_of(folder: Path) -> ModelPair:
    return custom_pair(str(folder), str(folder), name="p")


@pytest.mark.parametrize(("kind", "more"), FAMILIES.values(), ids=FAMILIES)
def test_nothing_is_said_of_a_head_that_can_be_read(kind: str, more: dict, tmp_path: Path) -> None:
    saved(kind, more, tmp_path)
    assert [*head_notices(pair_of(tmp_path))] == []


@pytest.mark.parametrize("shards", ["1GB", "60KB"])
def test_headers_alone_answer_for_a_usual_model(
    shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(tmp_path, "llama", max_shard_size=shards)
    monkeypatch.setattr("crossdiff.models.unembedding.load_unembedding", None)
    assert [*head_notices(pair_of(tmp_path))] == []


def without_head(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def narrow_head(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file(
        {**weights, "lm_head.weight": torch.zeros(512, 24)}, folder / "model.safetensors", {"format": "pt"}
    )


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("change", "says"),
    [(without_head, "no weight named lm_head"), (narrow_head, "has width 24 and its blocks 32"),
     (pickled, "pytorch_model.bin and no safetensors")],
)  # fmt: skip
def test_a_head_that_cannot_be_read_is_told_before_the_first_step(
    change: object, says: str, tmp_path: Path
) -> None:
    save_model(tmp_path, "llama")
    change(tmp_path)  # type: ignore[operator]
    notices = [*head_notices(pair_of(tmp_path))]
    assert [
        line for line in notices if line.startswith("p: the report will have no logits of the ")
    ] == notices
    assert [says in line for line in notices] == [True, True]


def broken_files(good: bytes) -> Iterator[tuple[bytes, str]]:
    yield b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n", "git lfs pull"
    yield good[:-40], "bytes; save or download the model again"
    yield good[:100], "no whole header"
    yield b"", "its 0 bytes hold no whole header"
    for text in (
        b"[1]",
        b"{",
        b'{"a": 3}',
        b'{"a": {"shape": [2], "data_offsets": 3}}',
        b"[" * 9999,
        b"\xff",
    ):
        yield struct.pack("<Q", len(text)) + text, "its header is no list of weights"


def test_weights_that_are_cut_are_refused(tmp_path: Path) -> None:
    file = save_model(tmp_path, "llama") / "model.safetensors"
    check_weights(pair_of(tmp_path), layer=1)
    for content, says in broken_files(file.read_bytes()):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=f"{file} .*{says}"):
            check_weights(pair_of(tmp_path), layer=1)


def test_a_head_in_a_broken_file_is_a_notice_where_no_step_needs_the_weights(tmp_path: Path) -> None:
    file = save_model(tmp_path, "llama") / "model.safetensors"
    good = file.read_bytes()
    for content, says in broken_files(good):
        file.write_bytes(content)
        assert all(says in line for line in head_notices(pair_of(tmp_path))), says
    (tmp_path / "model.safetensors").write_bytes(good)
    assert not [*head_notices(pair_of(tmp_path))]


def test_only_the_files_of_kept_blocks_count(tmp_path: Path) -> None:
    save_model(tmp_path, "llama", max_shard_size="30KB")
    weight_map = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    later = {file for name, file in weight_map.items() if ".layers.3." in name}
    later -= {file for name, file in weight_map.items() if ".layers.3." not in name}
    assert later
    for file in later:
        (tmp_path / file).write_bytes(b"cut")
    check_weights(pair_of(tmp_path), layer=1)
    with pytest.raises(ValueError, match="hold no whole header"):
        check_weights(pair_of(tmp_path), layer=3)


def test_a_hub_model_is_left_to_its_harvest() -> None:
    check_weights(pair_of(Path("org/model")), layer=1)
    assert not weight_checks._is_local(pair_of(Path("org/model")).base)
