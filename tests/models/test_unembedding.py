"""Logits of directions against the model's own last step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, PretrainedConfig, PreTrainedModel

from crossdiff.models.pair import ModelSettings
from crossdiff.models.unembedding import load_unembedding

GEMMA = Gemma2Config(
    vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=2, head_dim=8, tie_word_embeddings=True,
)  # fmt: skip
GPT2 = GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, tie_word_embeddings=False)


def saved(config: PretrainedConfig, folder: Path, **options: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        final_norm(model).weight.normal_(0.5, 0.3)
    model.save_pretrained(folder, **options)
    return model


def final_norm(model: PreTrainedModel) -> torch.nn.Module:
    body = model.base_model
    return body.norm if hasattr(body, "norm") else body.ln_f


def effect_by_the_model(model: PreTrainedModel, directions: torch.Tensor) -> torch.Tensor:
    """The model's own norm and head on unit vectors, the norm's division undone."""
    unit = torch.nn.functional.normalize(directions, dim=-1)
    middle = unit - unit.mean(-1, keepdim=True) if model.config.model_type == "gpt2" else unit
    size = middle.square().mean(-1, keepdim=True).sqrt()
    logits = model.lm_head(final_norm(model)(unit)) * size
    return (logits - logits.mean(-1, keepdim=True)).detach()


@pytest.mark.parametrize("config", [GEMMA, GPT2], ids=["rms norm, tied", "layer norm, own head"])
def test_the_effect_is_that_of_the_models_last_step(config: PretrainedConfig, tmp_path: Path) -> None:
    model = saved(config, tmp_path)
    head = load_unembedding(ModelSettings(name="m", path=str(tmp_path)), str(tmp_path), vocab_size=50)
    directions = torch.randn(5, 16, generator=torch.Generator().manual_seed(1))
    expected = effect_by_the_model(model, directions)
    torch.testing.assert_close(head.effect(directions), expected, rtol=1e-3, atol=1e-4)
    (top, bottom), *_ = head.ends(directions, count=3, at_a_time=2)
    assert [token for token, _ in top] == expected[0].topk(3).indices.tolist()
    assert [token for token, _ in bottom] == expected[0].topk(3, largest=False).indices.tolist()


def test_a_checkpoint_in_several_files_is_read_through_its_index(tmp_path: Path) -> None:
    saved(GEMMA, tmp_path, max_shard_size="4KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    head = load_unembedding(ModelSettings(name="m", path=str(tmp_path)), str(tmp_path), vocab_size=40)
    assert head.weight.shape == (40, 16)


def test_a_folder_without_weights_is_one_message(tmp_path: Path) -> None:
    GEMMA.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"holds no weights .*model.safetensors"):
        load_unembedding(ModelSettings(name="m", path=str(tmp_path)), str(tmp_path), vocab_size=50)
