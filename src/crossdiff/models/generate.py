"""Whole causal models: sampled answers, and logits after replacing a state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from crossdiff.models.checkpoint import load_config, merge_adapter, read_checkpoint
from crossdiff.models.config_file import NO_END, NO_TEMPLATE
from crossdiff.models.hooks import Push, body_of, decoder_blocks, pushed, replaced
from crossdiff.models.load import check_device
from crossdiff.models.pair import ModelSettings, check_layers
from crossdiff.models.tokenizers import load_model_tokenizer
from crossdiff.models.weights import Checkpoint


@dataclass(frozen=True)
class ChatModel:
    """A whole causal model on its device, with its tokenizer."""

    name: str
    model: Any
    tokenizer: Any
    device: torch.device

    @property
    def ends(self) -> list[int]:
        """Ids that end an answer, from the model's generation config and its tokenizer."""
        return _end_ids(self.model.generation_config.eos_token_id)

    def sampling(self) -> dict[str, Any]:
        """Settings of sampling, for records."""
        return {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "end_tokens": self.ends, "penalties": "none"}


@dataclass(frozen=True)
class Steering:
    """A push of the output of one block, one row per prompt."""

    block: torch.nn.Module
    push: Push


def load_chat_model(settings: ModelSettings, path: str, *, device: str) -> ChatModel:
    """The model, ready to sample; ValueError without a chat template, or an end in its generation config."""
    target = check_device(device)
    tokenizer = load_model_tokenizer(settings, path)
    if tokenizer.chat_template is None:
        raise ValueError(NO_TEMPLATE.format(path=settings.path))
    model = whole_model(settings.model_copy(update={"device_map": None}), path, device=target)
    if not _end_ids(model.generation_config.eos_token_id):
        raise ValueError(NO_END.format(path=settings.path))
    return as_chat_model(settings.name, model, tokenizer, target)


def as_chat_model(name: str, model: Any, tokenizer: Any, device: torch.device) -> ChatModel:
    """A loaded causal model, made ready to sample (generation config, padding).

    Without an end in generation config and tokenizer, answers have all `n_new_tokens`.
    """
    ends = sorted({*_end_ids(model.generation_config.eos_token_id), *_end_ids(tokenizer.eos_token_id)})
    _sample_plainly(model, ends)
    if tokenizer.pad_token_id is None:  # padding is masked, so any token will do
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(ends[0] if ends else 0)
    return ChatModel(name, model, tokenizer, device)


def _sample_plainly(model: Any, ends: list[int]) -> None:
    """Give a model a generation config with end tokens only.

    `generate` takes unset fields from the model's config, where a repetition penalty, suppressed tokens or a
    number of sequences per prompt would change the answers.
    """
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(eos_token_id=ends or None, pad_token_id=ends[0] if ends else 0)


def _end_ids(value: int | Sequence[int] | None) -> list[int]:
    """A config's `eos_token_id` as a list."""
    return [] if value is None else [value] if isinstance(value, int) else [int(end) for end in value]


def block_of(chat: ChatModel, settings: ModelSettings, layer: int) -> torch.nn.Module:
    """The block whose output is `layer`; ValueError where the model has no such block."""
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
    """One sampled answer per prompt (temperature 1, whole distribution), up to the first end token.

    Special tokens are left out.
    """
    tokenizer, ends = chat.tokenizer, set(chat.ends)
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
                new = takewhile(lambda token: token not in ends, row[ids.shape[1] :].tolist())
                yield str(tokenizer.decode(list(new), skip_special_tokens=True)).strip()


def _steered(steering: Steering | None, start: int, stop: int) -> Any:
    if steering is None:
        return nullcontext()
    return pushed(steering.block, steering.push.rows(start, stop))


def _rendered(tokenizer: Any, prompt: str) -> str:
    """The prompt as a user's turn, or as a text after BOS where there is no template."""
    if tokenizer.chat_template is None:
        return (tokenizer.bos_token or "") + prompt
    messages = [{"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


@dataclass
class CausalModel:
    """A whole model with its list of blocks."""

    model: Any
    blocks: nn.ModuleList

    @torch.inference_mode()
    def logits(
        self,
        ids: Int[Tensor, " place"],
        states: Float[Tensor, "state place d_model"],
        *,
        layer: int,
    ) -> Float[Tensor, "state place vocabulary"]:
        """Logits for one text when the output of block `layer` is each of `states` (float32).

        Blocks up to `layer` run and their output is discarded, which costs `(layer + 1) / n_blocks` of the
        pass and keeps the architecture's masks and positions for the later ones.
        """
        weights = next(self.model.parameters())
        rows = ids.to(weights.device, torch.int64).expand(len(states), -1)
        with replaced(self.blocks[layer], states.to(weights.device, weights.dtype)):
            return self.model(input_ids=rows, use_cache=False).logits.float()


def load_causal(model: ModelSettings, path: str, *, layer: int, device: str = "cpu") -> CausalModel:
    """The whole model in its dtype; ValueError for a `layer` that it does not have."""
    target = check_device(device)
    n_blocks = load_config(model, path).get_text_config(decoder=True).num_hidden_layers
    check_layers(model, [layer], n_blocks)
    loaded = whole_model(model, path, device=target)
    return CausalModel(loaded, decoder_blocks(body_of(loaded), n_blocks))


def whole_model(model: ModelSettings, path: str, *, device: torch.device) -> Any:
    """All blocks and the head, with the adapter merged, in the model's dtype, without gradients."""
    from transformers import AutoModelForCausalLM

    with Checkpoint.find(model, path, config=load_config(model, path)).view() as view:
        revision = model.revision if view == path else None
        loaded = read_checkpoint(AutoModelForCausalLM, model, view, revision=revision)
    if model.adapter is not None:
        loaded = merge_adapter(loaded, model.adapter)
    if model.device_map is None:
        loaded = loaded.to(device)
    return loaded.eval().requires_grad_(requires_grad=False)
