"""Tiny random models with something odd in how they are built; one row of `ODD` each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.model_folders import make_tokenizer

N_BLOCKS, D_MODEL, VOCABULARY = 4, 32, 512
_SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": D_MODEL, "num_hidden_layers": N_BLOCKS, "num_attention_heads": 4,
    "bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip
_TEXT = {**_SIZES, "intermediate_size": 64, "num_key_value_heads": 2, "max_position_embeddings": 256}
_LATENT = {
    "q_lora_rank": 16, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8,
}  # fmt: skip
_MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}


def odd_config(kind: str) -> Any:
    """The configuration of one kind."""
    import transformers as hf

    match kind:
        case "few positions":
            return hf.GPTNeoConfig(
                vocab_size=VOCABULARY, hidden_size=D_MODEL, num_layers=N_BLOCKS, num_heads=4, window_size=8,
                max_position_embeddings=40, attention_types=[[["global", "local"], 2]],
            )  # fmt: skip
        case "longrope":
            rope = {
                "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4,
                "long_factor": [4.0] * 4, "original_max_position_embeddings": 16,
            }  # fmt: skip
            return hf.Phi3Config(**_TEXT, original_max_position_embeddings=16, rope_parameters=rope)
        case "dynamic":
            rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
            return hf.LlamaConfig(**{**_TEXT, "max_position_embeddings": 16}, rope_parameters=rope)
        case "residuals scaled by depth":
            return hf.MiniCPM3Config(
                **{**_TEXT, "num_key_value_heads": 4}, **_LATENT, scale_depth=1.4, dim_model_base=16,
            )  # fmt: skip
        case "experts in some blocks":
            return hf.Qwen2MoeConfig(
                **_TEXT, moe_intermediate_size=16, shared_expert_intermediate_size=16, num_experts=4,
                num_experts_per_tok=2, mlp_only_layers=[0, 3],
            )  # fmt: skip
        case "vision":
            vision = {
                "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 4, "out_hidden_size": 32,
                "fullatt_block_indexes": [1],
            }  # fmt: skip
            return hf.Qwen2_5_VLConfig(
                text_config={**_TEXT, "rope_parameters": _MROPE}, vision_config=vision, image_token_id=5,
                video_token_id=6, vision_start_token_id=7, vision_end_token_id=8,
            )  # fmt: skip
        case "vision tower as deep as the text":
            vision = {
                "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": N_BLOCKS, "image_size": 28,
                "num_attention_heads": 4, "patch_size": 14,
            }  # fmt: skip
            return hf.LlavaConfig(
                text_config=hf.LlamaConfig(**_TEXT), vision_config=hf.CLIPVisionConfig(**vision),
                image_token_index=5,
            )  # fmt: skip
        case "state space":
            return hf.MambaConfig(
                vocab_size=VOCABULARY, hidden_size=D_MODEL, num_hidden_layers=N_BLOCKS, state_size=8,
                pad_token_id=0, bos_token_id=None, eos_token_id=1,
            )  # fmt: skip
        case "looks to the right":
            return hf.Gemma3TextConfig(
                **{**_TEXT, "head_dim": 8, "sliding_window": 64, "query_pre_attn_scalar": 8},
                use_bidirectional_attention=True,
            )  # fmt: skip
        case "streams":
            return hf.Gemma3nTextConfig(
                **{**_TEXT, "intermediate_size": [64] * N_BLOCKS, "head_dim": 8, "sliding_window": 16},
                vocab_size_per_layer_input=VOCABULARY, hidden_size_per_layer_input=8, altup_num_inputs=4,
                num_kv_shared_layers=0, laurel_rank=4, activation_sparsity_pattern=[0.0] * N_BLOCKS,
            )  # fmt: skip
    raise KeyError(kind)


def save_odd(folder: Path, kind: str, *, seed: int = 0, max_shard_size: str = "1GB") -> Path:
    """A folder as `save_pretrained` leaves it, with weights that are large enough to matter."""
    import transformers as hf

    classes = {
        "vision": hf.Qwen2_5_VLForConditionalGeneration,
        "vision tower as deep as the text": hf.LlavaForConditionalGeneration,
    }
    torch.manual_seed(seed)
    config = odd_config(kind)
    model = classes[kind](config) if kind in classes else hf.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    make_tokenizer().save_pretrained(folder)
    return folder


def hidden_states(folder: Path, ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """What transformers itself gives for one row of tokens: [L + 1] is the output of block L."""
    import transformers as hf

    config = hf.AutoConfig.from_pretrained(folder)
    auto = hf.AutoModelForImageTextToText if hasattr(config, "vision_config") else hf.AutoModelForCausalLM
    model = auto.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.inference_mode():
        return model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
