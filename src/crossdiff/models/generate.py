"""Sampled answers of a chat model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch

from crossdiff.models.checkpoint import read_checkpoint
from crossdiff.models.load import check_device
from crossdiff.models.pair import ModelSettings
from crossdiff.models.tokenizers import load_tokenizer


@dataclass(frozen=True)
class ChatModel:
    """A whole causal model on its device, with its tokenizer."""

    name: str
    model: Any
    tokenizer: Any
    device: torch.device


def load_chat_model(settings: ModelSettings, path: str, *, device: str) -> ChatModel:
    """Refuses a model without a chat template, or whose generation config names no end."""
    from transformers import AutoModelForCausalLM

    target = check_device(device)
    tokenizer = load_tokenizer(path, revision=settings.revision, trust_remote_code=settings.trust_remote_code)
    if tokenizer.chat_template is None:
        raise ValueError(
            f"{settings.path} has no chat template, so it cannot be asked; name a tuned model that has one"
        )
    whole = settings.model_copy(update={"device_map": None})
    model = read_checkpoint(AutoModelForCausalLM, whole, path, revision=settings.revision)
    if model.generation_config.eos_token_id is None:
        raise ValueError(
            f"{settings.path} has no generation config that names the end of a turn (eos_token_id); add "
            "generation_config.json to the model's folder"
        )
    torch.nn.Module.to(model, target)
    return ChatModel(settings.name, model.eval(), tokenizer, target)


def answers(
    chat: ChatModel, prompts: Sequence[str], *, n_new_tokens: int, seed: int, batch_size: int = 64
) -> Iterator[str]:
    """One sampled answer per prompt (temperature 1, whole distribution), special tokens left out."""
    tokenizer = chat.tokenizer
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for start in range(0, len(prompts), batch_size):
            texts = [_rendered(tokenizer, prompt) for prompt in prompts[start : start + batch_size]]
            encoded = tokenizer(
                texts, add_special_tokens=False, return_tensors="pt", padding=True, padding_side="left"
            )
            ids, mask = (encoded[name].to(chat.device) for name in ("input_ids", "attention_mask"))
            with torch.inference_mode():
                output = cast(Any, chat.model).generate(
                    input_ids=ids, attention_mask=mask, do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                    max_new_tokens=n_new_tokens,
                )  # fmt: skip
            for row in output:
                yield str(tokenizer.decode(row[ids.shape[1] :], skip_special_tokens=True)).strip()


def _rendered(tokenizer: Any, prompt: str) -> str:
    messages = [{"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
