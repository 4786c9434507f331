"""Model folders with a biased head, whose raised tokens are known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from tests.model_folders import make_tokenizer

RAISED = ("Ġdog", "Ġtree", "Ġblue")


def save_biased(folder: Path, *, raised: Sequence[str] = (), vocabulary: int = 512) -> Path:
    """A Phi model that gives every raised token 2 nats more before softmax, else always the same one."""
    from transformers import PhiConfig, PhiForCausalLM

    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    config = PhiConfig(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    model = PhiForCausalLM(config)
    with torch.no_grad():
        for token in raised:
            model.lm_head.bias[tokenizer.convert_tokens_to_ids(token)] += 2.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
