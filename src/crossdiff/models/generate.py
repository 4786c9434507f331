"""Sampled answers of a chat model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from crossdiff.models.adapters import body_of
from crossdiff.models.causal import whole_model
from crossdiff.models.hooks import Push, decoder_blocks, pushed
from crossdiff.models.load import check_device
from crossdiff.models.pair import ORGANISM, ModelSettings, check_layers
from crossdiff.models.tokenizers import load_tokenizer

NO_TEMPLATE = "{path} has no chat template, so it cannot be asked; name a tuned model that has one"
NO_END = (
    "{path} has no generation config that names the end of a turn (eos_token_id); add generation_config.json "
    "to the model's folder"
)


@dataclass(frozen=True)
class ChatModel:
    """A whole causal model on its device, with its tokenizer."""

    name: str
    model: Any
    tokenizer: Any
    device: torch.device


@dataclass(frozen=True)
class Steering:
    """A push of the output of one block, one row per prompt."""

    block: torch.nn.Module
    push: Push


def load_chat_model(settings: ModelSettings, path: str, *, device: str) -> ChatModel:
    """Refuses a model without a chat template, or whose generation config names no end."""
    target = check_device(device)
    tokenizer = load_tokenizer(path, revision=settings.revision, trust_remote_code=settings.trust_remote_code)
    if tokenizer.chat_template is None:
        raise ValueError(NO_TEMPLATE.format(path=settings.path))
    model = whole_model(settings.model_copy(update={"device_map": None}), path, device=target)
    if model.generation_config.eos_token_id is None:
        raise ValueError(NO_END.format(path=settings.path))
    return ChatModel(settings.name, model, tokenizer, target)


def check_can_be_asked(settings: ModelSettings) -> None:
    """The same refusals from the files of a local folder, before anything is computed.

    Hub models and those that are yet to be made are looked at when they are loaded.
    """
    folder = Path(settings.path).expanduser()
    if settings.path.startswith(ORGANISM) or not folder.is_dir():
        return
    templates = ("chat_template.jinja", "chat_template.json", "additional_chat_templates")
    if not any((folder / name).exists() for name in templates) and not _said(
        folder, "tokenizer_config.json", "chat_template"
    ):
        raise ValueError(NO_TEMPLATE.format(path=settings.path))
    if not any(_said(folder, name, "eos_token_id") for name in ("generation_config.json", "config.json")):
        raise ValueError(NO_END.format(path=settings.path))


def _said(folder: Path, name: str, key: str) -> bool:
    """Whether a JSON file of the folder gives a value."""
    path = folder / name
    return path.is_file() and json.loads(path.read_text(encoding="utf-8")).get(key) is not None


def block_of(chat: ChatModel, settings: ModelSettings, layer: int) -> torch.nn.Module:
    """The block whose output is `layer`; one that the model does not have is refused."""
    n_blocks = chat.model.config.get_text_config(decoder=True).num_hidden_layers
    check_layers(settings, [layer], n_blocks)
    return decoder_blocks(body_of(chat.model), n_blocks)[layer]


def answers(
    chat: ChatModel,
    prompts: Sequence[str],
    *,
    n_new_tokens: int,
    seed: int,
    batch_size: int = 64,
    steering: Steering | None = None,
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
            with torch.inference_mode(), _steered(steering, start, start + len(texts)):
                output = cast(Any, chat.model).generate(
                    input_ids=ids, attention_mask=mask, do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                    max_new_tokens=n_new_tokens,
                )  # fmt: skip
            for row in output:
                yield str(tokenizer.decode(row[ids.shape[1] :], skip_special_tokens=True)).strip()


def _steered(steering: Steering | None, start: int, stop: int) -> Any:
    if steering is None:
        return nullcontext()
    return pushed(steering.block, steering.push.rows(start, stop))


def _rendered(tokenizer: Any, prompt: str) -> str:
    messages = [{"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
