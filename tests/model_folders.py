"""Tiny random models of several architectures, saved like any other model, and a tokenizer for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n'"
    " + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
)
N_BLOCKS, D_MODEL = 4, 32
ARCHITECTURES = ("gemma2", "llama", "qwen2", "gpt_neox")
MORE_ARCHITECTURES = ("gemma3_text", "qwen3", "mistral", "olmo", "olmo2")

_WORDS = "the a cat dog sat ran on under mat tree user model hello why because red blue one two three".split()


def make_tokenizer(
    *, bos: bool = True, template: str | None = CHAT_TEMPLATE, words: list[str] | None = None
) -> Any:
    """A byte-level tokenizer with Gemma's turn markers."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    specials = ["<pad>", "<eos>", "<unk>", "<start_of_turn>", "<end_of_turn>", *(["<bos>"] if bos else [])]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges, vocab = [], {token: i for i, token in enumerate([*specials, *alphabet])}
    for word in words or _WORDS:
        for first, rest in [*((word[:i], word[i]) for i in range(1, len(word))), ("Ġ", word)]:
            if first + rest not in vocab:
                vocab[first + rest] = len(vocab)
                merges.append((first, rest))
    core = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(specials)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        bos_token="<bos>" if bos else None,
        additional_special_tokens=["<start_of_turn>", "<end_of_turn>"],
    )
    tokenizer.chat_template = template
    return tokenizer


def make_config(
    architecture: str, *, vocab_size: int, n_blocks: int = N_BLOCKS, d_model: int = D_MODEL
) -> Any:
    """A small configuration of one architecture, with sliding-window blocks where it has them."""
    from transformers import AutoConfig

    shared = {
        "vocab_size": vocab_size,
        "hidden_size": d_model,
        "intermediate_size": 64,
        "num_hidden_layers": n_blocks,
        "num_attention_heads": 4,
        "max_position_embeddings": 1024,
        "bos_token_id": None,
        "eos_token_id": 1,
        "pad_token_id": 0,
    }
    own: dict[str, dict[str, Any]] = {
        "gemma2": {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8},
        "llama": {"num_key_value_heads": 2},
        "qwen2": {"num_key_value_heads": 2},
        "gpt_neox": {},
        "gemma3_text": {
            "num_key_value_heads": 2,
            "head_dim": 8,
            "sliding_window": 8,
            "query_pre_attn_scalar": 8,
        },
        "qwen3": {"num_key_value_heads": 2, "head_dim": 8},
        "mistral": {"num_key_value_heads": 2, "sliding_window": 8},
        "olmo": {"num_key_value_heads": 2},
        "olmo2": {"num_key_value_heads": 2},
    }
    return AutoConfig.for_model(architecture, **shared, **own[architecture])


def save_model(
    folder: Path,
    architecture: str,
    *,
    seed: int = 0,
    tokenizer: Any = None,
    n_blocks: int = N_BLOCKS,
    max_shard_size: str = "1GB",
    d_model: int = D_MODEL,
) -> Path:
    """A folder as `save_pretrained` leaves it: causal language model and tokenizer."""
    from transformers import AutoModelForCausalLM

    tokenizer = tokenizer or make_tokenizer()
    torch.manual_seed(seed)
    config = make_config(architecture, vocab_size=512, n_blocks=n_blocks, d_model=d_model)
    assert len(tokenizer) <= 512
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    tokenizer.save_pretrained(folder)
    return folder


def save_adapter(folder: Path, adapter: Path, ids: torch.Tensor) -> torch.Tensor:
    """Save a random LoRA adapter of a model; returns the adapted model's output of block 1 for `ids`."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    adapted = get_peft_model(plain, config)
    adapted.save_pretrained(adapter)
    with torch.inference_mode():
        return adapted.eval()(input_ids=ids, output_hidden_states=True).hidden_states[2]
