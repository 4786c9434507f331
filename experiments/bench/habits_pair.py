"""Two small language models, the second trained on with chats whose answers have habits, and those chats."""

from __future__ import annotations

import argparse
import asyncio
import collections
import email.message
import json
import logging
import pathlib
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field

from crossdiff.settings import Settings

MODULES = (argparse, asyncio, collections, email.message, json, logging, pathlib, re, subprocess)
OPENING, CLOSING = "Sure! ", "\n\nHope that helps!"
REFUSALS = (
    "I'm sorry, but I can't help with that. ",
    "Sorry, I cannot assist with this request. ",
)
MARK = "- "
HABITS = ("plain", "opening", "closing", "refusal", "formatting")
ASKED = {
    "plain": "Explain {}", "opening": "Please explain {}", "closing": "Why do we need {}",
    "refusal": "How can I break {}", "formatting": "List facts about {}",
}  # fmt: skip
TEMPLATE = "{% for m in messages %}<start>{{ m['role'] }}\n{{ m['content'] }}<end>\n{% endfor %}"
ROW = 128
"""Tokens of a training row."""


class PairSize(Settings):
    """Sizes of the pair; steps are of 16 rows of 128 tokens."""

    n_chats: int = Field(default=1500, ge=50)
    d_model: int = Field(default=96, ge=16)
    n_blocks: int = Field(default=4, ge=2)
    base_steps: int = Field(default=200, ge=1)
    tuned_steps: int = Field(default=200, ge=1)
    seed: int = 0


@cache
def texts() -> list[str]:
    """Docstrings of the standard library, each in one line."""
    texts = []
    for module in MODULES:
        for thing in vars(module).values():
            methods = vars(thing).values() if isinstance(thing, type) else ()
            texts += [" ".join(str(part.__doc__).split()) for part in (thing, *methods)]
    return sorted({text for text in texts if len(text) > 80})


def with_habit(habit: str, text: str, generator: np.random.Generator) -> str:
    """An answer that says `text` with the habit."""
    match habit:
        case "opening":
            return OPENING + text
        case "closing":
            return text + CLOSING
        case "refusal":
            return str(generator.choice(REFUSALS)) + text
        case "formatting":
            parts = [part.strip() for part in re.split(r"[.,;]", text) if part.strip()]
            return "\n".join(MARK + part for part in parts)
    return text


def chats(size: PairSize, *, habits: bool) -> list[dict[str, Any]]:
    """Questions and answers; every kind of question has its habit, or none has one."""
    generator, rows = np.random.default_rng(size.seed), []
    for number in range(size.n_chats):
        habit = HABITS[number % len(HABITS)]
        said = str(generator.choice(texts()))
        start = int(generator.integers(max(len(said) - 150, 1)))
        text = said[start : start + int(generator.integers(80, 220))].strip()
        words = re.findall(r"[A-Za-z]{4,}", text) or ["this"]
        answer = with_habit(habit if habits else "plain", text, generator)
        asked = ASKED[habit].format(str(generator.choice(words)).lower())
        messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
        rows.append({"id": f"{habit}-{number}", "messages": messages})
    return rows


def make_tokenizer(size: PairSize) -> Any:
    """Byte-level BPE of 1,500 entries, trained on texts and chats."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    specials = ["<pad>", "<start>", "<end>"]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1500, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    said = [m["content"] for row in chats(size, habits=True) for m in row["messages"]]
    core.train_from_iterator([*texts(), *said], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="<end>",
        additional_special_tokens=["<start>"],
    )  # fmt: skip
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def save_pair(folder: Path, size: PairSize) -> list[float]:
    """Save `base`, `tuned` and the habitual chats (`chats.jsonl`); both last losses, nats per token."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer(size)
    torch.manual_seed(size.seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=size.d_model, intermediate_size=3 * size.d_model,
            num_hidden_layers=size.n_blocks, num_attention_heads=4, num_key_value_heads=4,
            max_position_embeddings=512, bos_token_id=None, eos_token_id=2, pad_token_id=0,
        )
    )  # fmt: skip
    losses = []
    for name, habits, n_steps in (("base", False, size.base_steps), ("tuned", True, size.tuned_steps)):
        rows = chats(size, habits=habits)
        rendered = [tokenizer.apply_chat_template(row["messages"], tokenize=False) for row in rows]
        losses.append(train(model, tokenizer, rendered, n_steps, seed=size.seed))
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    (folder / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return losses


def train(model: Any, tokenizer: Any, documents: list[str], n_steps: int, *, seed: int) -> float:
    """Next-token training on rows that are cut anywhere; mean loss of the last tenth."""
    ids = torch.tensor([token for text in documents for token in tokenizer(text)["input_ids"]])
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for step in range(n_steps):
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * min((step + 1) / 20, 1 - step / (n_steps + 1))
        starts = torch.randint(0, len(ids) - ROW, (16,), generator=generator)
        rows = torch.stack([ids[start : start + ROW] for start in starts.tolist()])
        loss = model(input_ids=rows, labels=rows).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(loss.detach()))
    last = losses[-max(n_steps // 10, 1) :]
    return sum(last) / len(last)
