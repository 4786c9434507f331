"""Checkpoints: whole, or refused in one message; foreign code does not run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from crossdiff.models.checkpoint import load_config
from crossdiff.models.load import load_truncated
from crossdiff.models.pair import ModelSettings
from tests.model_folders import save_model

IDS = torch.arange(10, 30)[None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_model(tmp_path / "model", "llama")


def outputs(folder: Path, **changes: Any) -> torch.Tensor:
    model = ModelSettings(name="m", path=str(folder), **{"dtype": "float32", **changes})
    return load_truncated(model, model.path, layers=[1]).outputs(IDS, None, layers=[1])[1]


def rewrite(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def configure(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def without(part: str) -> Callable[[dict[str, torch.Tensor]], object]:
    return lambda tensors: [tensors.pop(name) for name in list(tensors) if part in name]


def test_weights_that_are_missing_in_a_kept_block_are_refused(folder: Path) -> None:
    rewrite(folder / "model.safetensors", without("layers.1.mlp"))
    with pytest.raises(ValueError, match=r"lacks 3 weights of the model, such as layers.1.mlp.*whole model"):
        outputs(folder)


def test_weights_that_are_missing_beyond_the_kept_blocks_change_nothing(folder: Path) -> None:
    whole = outputs(folder)
    rewrite(folder / "model.safetensors", without("layers.2."))
    assert torch.equal(outputs(folder), whole)


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    embedding = {"model.embed_tokens.weight": torch.zeros(300, 32)}
    rewrite(folder / "model.safetensors", lambda tensors: tensors.update(embedding))
    with pytest.raises(
        ValueError, match=r"another shape than its config.json says, 1 weights .*embed_tokens"
    ):
        outputs(folder)


def test_a_cut_file_of_weights_is_one_message(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"model .* cannot be loaded: .*; check its files"):
        outputs(folder)


def test_an_unknown_architecture_and_an_encoder_are_refused(folder: Path) -> None:
    configure(folder, model_type="nonsense")
    with pytest.raises(ValueError, match=r"cannot be loaded: .*nonsense.*; check its files"):
        outputs(folder)
    configure(folder, model_type="t5")
    with pytest.raises(ValueError, match=r"is an encoder-decoder model \(t5\); give a decoder-only model"):
        load_config(ModelSettings(name="m", path=str(folder)), str(folder))


@pytest.mark.parametrize(("name", "value"), [("attention", "flash_attention_2"), ("device_map", "nowhere")])
def test_a_setting_that_this_machine_cannot_follow_is_one_message(
    folder: Path, name: str, value: str
) -> None:
    with pytest.raises(ValueError, match=rf"cannot be loaded: .*{name}={value}"):
        outputs(folder, **{name: value})


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_model_runs_in_the_precision_asked_for(folder: Path, dtype: str) -> None:
    found = outputs(folder, dtype=dtype)
    assert found.dtype == getattr(torch, dtype)
    torch.testing.assert_close(found.float(), outputs(folder), rtol=0.1, atol=0.1)


def test_a_device_map_places_the_blocks(folder: Path) -> None:
    assert torch.equal(outputs(folder, device_map="auto"), outputs(folder))


FOREIGN = """
from pathlib import Path
from transformers import LlamaConfig, LlamaModel
Path({ran!r}).write_text("ran")
class MineConfig(LlamaConfig):
    model_type = "mine"
class MineModel(LlamaModel):
    config_class = MineConfig
"""


def test_foreign_code_runs_when_asked_for_by_hand_alone(folder: Path, tmp_path: Path) -> None:
    whole, ran = outputs(folder), tmp_path / "ran"
    (folder / "code.py").write_text(FOREIGN.format(ran=str(ran)))
    classes = {"AutoConfig": "code.MineConfig", "AutoModel": "code.MineModel"}
    configure(folder, model_type="mine", architectures=["MineModel"], auto_map=classes)
    with pytest.raises(
        ValueError, match=r"Python code of its own, .*read it, then set trust_remote_code=true"
    ):
        outputs(folder)
    assert not ran.exists()
    assert torch.equal(outputs(folder, trust_remote_code=True), whole)
    assert ran.exists()
