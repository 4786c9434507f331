"""Truncated models give the block outputs of the full model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from crossdiff.models.load import check_device, load_truncated
from crossdiff.models.pair import ModelSettings
from tests.model_folders import ARCHITECTURES, N_BLOCKS, save_model


def settings(folder: Path, **changes: object) -> ModelSettings:
    return ModelSettings(name="m", path=str(folder), **{"dtype": "float32", **changes})


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_hooked_outputs_are_the_full_models_hidden_states(tmp_path: Path, architecture: str) -> None:
    from transformers import AutoModelForCausalLM

    save_model(tmp_path, architecture)
    full = AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    ids = torch.randint(6, 300, (3, 24), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        hidden = full(input_ids=ids, output_hidden_states=True).hidden_states
    model = load_truncated(settings(tmp_path), str(tmp_path), layers=[0, 2])
    outputs = model.outputs(ids, None, layers=[0, 2])
    assert len(model.blocks) == 3
    assert model.n_blocks_full == N_BLOCKS
    torch.testing.assert_close(outputs[0], hidden[1])
    torch.testing.assert_close(outputs[2], hidden[3])


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packed_documents_do_not_see_each_other(tmp_path: Path, architecture: str, attention: str) -> None:
    if architecture == "gemma2" and attention == "sdpa":
        pytest.skip("Gemma-2's soft-capping has no sdpa")
    save_model(tmp_path, architecture)
    model = load_truncated(settings(tmp_path, attention=attention), str(tmp_path), layers=[2])
    documents = [
        torch.randint(6, 300, (n,), generator=torch.Generator().manual_seed(n)) for n in (7, 1, 13, 11)
    ]
    packed = model.outputs(
        torch.cat(documents)[None],
        torch.cat([torch.arange(len(d)) for d in documents])[None],
        layers=[2],
    )[2][0]
    alone = torch.cat([model.outputs(d[None], None, layers=[2])[2][0] for d in documents])
    torch.testing.assert_close(packed, alone, rtol=1e-4, atol=1e-5)


def test_a_layer_outside_the_model_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path, "llama")
    with pytest.raises(ValueError, match=r"layer=4 is outside .* indices 0 to 3; choose one"):
        load_truncated(settings(tmp_path), str(tmp_path), layers=[4])


def test_an_unreachable_hub_model_says_how_to_pass_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    model = ModelSettings(name="m", path="nobody/no-such-model")
    with pytest.raises(ValueError, match=r"nobody/no-such-model cannot be reached .* pass a folder"):
        load_truncated(model, model.path, layers=[0])


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_without_cuda_is_refused() -> None:
    with pytest.raises(ValueError, match="device=cuda but this machine has no CUDA device; use device=cpu"):
        check_device("cuda")
