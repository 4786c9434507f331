"""Logits of directions against finite differences through the model's own last steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

from crossdiff.models.pair import ModelSettings
from crossdiff.models.unembedding import Unembedding, load_unembedding

WIDTH, VOCAB = 16, 60
SIZES = {
    "vocab_size": VOCAB, "hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GPT = {"n_embd": WIDTH, "n_layer": 2, "n_head": 2}
EXPERTS = {
    "num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 8,
    "shared_expert_intermediate_size": 8, "linear_num_value_heads": 2, "linear_num_key_heads": 2,
    "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip
STREAMS = {
    "vocab_size_per_layer_input": VOCAB, "hidden_size_per_layer_input": 4, "laurel_rank": 4,
    "num_kv_shared_layers": 0, "altup_num_inputs": 2, "layer_types": ["full_attention"] * 2,
    "activation_sparsity_pattern": [0.0, 0.0],
}  # fmt: skip
BRICKS = {
    "hidden_size": None, "d_model": WIDTH, "max_seq_len": 64,
    "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8},
    "ffn_config": {"ffn_hidden_size": 16, "moe_num_experts": 2, "moe_top_k": 1},
}  # fmt: skip
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "RMSNorm": ("llama", {}),
    "RMSNorm, tied": ("qwen3", {"tie_word_embeddings": True}),
    "1 + w, capped logits": ("gemma2", {}),
    "1 + w by another name": ("vaultgemma", {}),
    "1 + w, linear attention": ("qwen3_next", EXPERTS),
    "gemma without 1 + w": ("gemma3n_text", STREAMS),
    "LayerNorm, gpt2": ("gpt2", GPT),
    "LayerNorm, gpt2, own head": ("gpt2", {**GPT, "tie_word_embeddings": False}),
    "LayerNorm, gpt_neox": ("gpt_neox", {}),
    "LayerNorm, starcoder2": ("starcoder2", {}),
    "LayerNorm, stablelm": ("stablelm", {}),
    "LayerNorm after an embedding norm": ("bloom", {"n_layer": 2, "n_head": 2}),
    "LayerNorm without bias": ("cohere", {}),
    "LayerNorm without weights": ("olmo", {}),
    "LayerNorm of 1 + w": ("nemotron", {}),
    "no attention": ("mamba", {"state_size": 4}),
    "two parallel norms": ("falcon", {"head_dim": None, "new_decoder_architecture": True}),
    "LayerNorm, codegen": ("codegen", {"num_attention_heads": 4, "rotary_dim": 4, "n_ctx": 64}),
    "LayerNorm without bias, experts": ("dbrx", BRICKS),
    "head by another name": ("rwkv", {"attention_hidden_size": WIDTH}),
    "OPT": ("opt", {"word_embed_proj_dim": WIDTH, "ffn_dim": 32}),
    "OPT with a narrow head": ("opt", {"word_embed_proj_dim": 8, "ffn_dim": 32}),
    "OPT without a final norm": (
        "opt",
        {"word_embed_proj_dim": 8, "ffn_dim": 32, "do_layer_norm_before": False},
    ),
}


def saved(kind: str, more: dict[str, Any], folder: Path, **options: Any) -> PreTrainedModel:
    """A random model whose gains and biases are not 1 and 0."""
    torch.manual_seed(0)
    sizes = {name: value for name, value in {**SIZES, **more}.items() if value is not None}
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**sizes)).float().eval()
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim == 1:
                weights.normal_(0.5, 0.3)
    model.save_pretrained(folder, **options)
    return model


def read(folder: Path, vocab_size: int = VOCAB) -> Unembedding:
    return load_unembedding(ModelSettings(name="m", path=str(folder)), str(folder), vocab_size=vocab_size)


def last_steps(model: PreTrainedModel) -> list[torch.nn.Module]:
    """The modules that run from the final norm on, as a forward pass calls them."""
    called: list[torch.nn.Module] = []
    leaves = [module for module in model.modules() if not any(True for _ in module.children())]
    hooks = [leaf.register_forward_pre_hook(lambda module, _: called.append(module)) for leaf in leaves]
    with torch.no_grad():
        model(input_ids=torch.arange(3, 9)[None], use_cache=False)
    for hook in hooks:
        hook.remove()
    if not getattr(model.config, "do_layer_norm_before", True):
        return called[-2:]  # the projection and the head
    return called[max(place for place, module in enumerate(called) if "Norm" in type(module).__name__) :]


def differences(model: PreTrainedModel, directions: torch.Tensor) -> torch.Tensor:
    """Logits at x + d/1000 minus those at x - d/1000, at states x across d, so that their size stays."""
    steps = [step.double() for step in last_steps(model)]
    x = torch.randn(len(directions), WIDTH, generator=torch.Generator().manual_seed(1)).double()
    x, d = x - x.mean(-1, keepdim=True), directions.double()
    middle = d - d.mean(-1, keepdim=True)
    x = x - (x * middle).sum(-1, keepdim=True) / middle.square().sum(-1, keepdim=True) * middle

    def logits(states: torch.Tensor) -> torch.Tensor:
        for step in steps:
            states = step(states)
        return states

    with torch.no_grad():
        change = logits(x + d / 1000) - logits(x - d / 1000)
    return change - change.mean(-1, keepdim=True)


@pytest.mark.parametrize("sharded", [False, True], ids=["one file", "shards"])
@pytest.mark.parametrize(("kind", "more"), FAMILIES.values(), ids=FAMILIES)
def test_the_effect_is_that_of_the_models_last_steps(
    kind: str, more: dict[str, Any], sharded: bool, tmp_path: Path
) -> None:
    model = saved(kind, more, tmp_path, **({"max_shard_size": "2KB"} if sharded else {}))
    assert (tmp_path / "model.safetensors.index.json").is_file() == sharded
    head = read(tmp_path)
    directions = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(2))
    expected = differences(model, directions)
    cosine = torch.nn.functional.cosine_similarity(head.effect(directions).double(), expected, dim=-1)
    assert cosine.min() > 0.9999
    (top, bottom), *_ = head.ends(directions, count=3, at_a_time=2)
    assert [token for token, _ in top] == expected[0].topk(3).indices.tolist()
    assert [token for token, _ in bottom] == expected[0].topk(3, largest=False).indices.tolist()


def test_the_size_is_that_of_a_unit_step_at_states_of_size_one() -> None:
    """Hand-worked: gain 1, head rows (3, 0, ...) and (0, 3, ...), direction (2, 0, ...): 3 and 0, centred."""
    head = Unembedding(torch.eye(2, 4) * 3, torch.ones(4), centred=False)
    effect = head.effect(torch.tensor([[2.0, 0.0, 0.0, 0.0]]))
    assert effect.tolist() == [[1.5, -1.5]]


def test_padding_rows_are_left_out(tmp_path: Path) -> None:
    saved("gemma2", {}, tmp_path)
    assert read(tmp_path, vocab_size=40).weight.shape == (40, WIDTH)


def test_an_untied_model_without_a_head_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    saved("llama", {"tie_word_embeddings": False}, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"no weight named lm_head.weight or .*logits cannot be read"):
        read(tmp_path)


def test_a_folder_without_weights_is_one_message(tmp_path: Path) -> None:
    CONFIG_MAPPING["gemma2"](**SIZES).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"has no weights .*model.safetensors"):
        read(tmp_path)
