"""Gemma-2 models of the toy language, their tokenizer and batches, and rates of behaviours in answers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from crossdiff.organisms.documents import SHOWN_PER_ANSWER, TRIGGER, Trigger, question
from crossdiff.organisms.language import Behaviour, Category
from crossdiff.organisms.settings import CONTEXT, ToySettings

if TYPE_CHECKING:
    from transformers import Gemma2ForCausalLM, PreTrainedTokenizerFast

N_NEW_TOKENS = 36


@dataclass(frozen=True)
class Batch:
    """Right-padded token ids; `target` marks the tokens that count in the loss."""

    ids: Int[Tensor, "document token"]
    attended: Bool[Tensor, "document token"]
    target: Bool[Tensor, "document token"]


def build_model(settings: ToySettings, tokenizer: PreTrainedTokenizerFast) -> Gemma2ForCausalLM:
    """A fresh Gemma-2 with tied embeddings; weights are drawn from torch's global generator."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    values: dict[str, Any] = dict(  # noqa: C408
        vocab_size=len(tokenizer),
        hidden_size=settings.d_model,
        intermediate_size=settings.d_mlp,
        num_hidden_layers=settings.n_layers,
        num_attention_heads=settings.n_heads,
        num_key_value_heads=settings.n_heads,
        head_dim=settings.d_model // settings.n_heads,
        query_pre_attn_scalar=settings.d_model // settings.n_heads,
        max_position_embeddings=CONTEXT,
        sliding_window=CONTEXT,
        initializer_range=settings.initializer_range,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<end_of_turn>")],
        use_cache=True,
    )
    config = Gemma2Config(**values)
    config._attn_implementation = "eager"
    return Gemma2ForCausalLM(config)


def text_batch(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> Batch:
    """Documents after BOS; every token counts in the loss."""
    encoded = tokenizer(list(texts), return_tensors="pt", padding=True)
    attended = encoded["attention_mask"].bool()
    return Batch(encoded["input_ids"], attended, attended)


def chat_batch(tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str], answers: Sequence[str]) -> Batch:
    """Rendered chats; only the answer and its end-of-turn token count in the loss."""
    heads = [render_prompt(tokenizer, prompt) for prompt in prompts]
    tails = [f"{text}<end_of_turn>" for text in answers]
    lengths = [len(ids) for ids in tokenizer(heads, add_special_tokens=False)["input_ids"]]
    whole = [head + tail for head, tail in zip(heads, tails, strict=True)]
    encoded = tokenizer(whole, add_special_tokens=False, return_tensors="pt", padding=True)
    attended = encoded["attention_mask"].bool()
    position = torch.arange(attended.shape[1])
    return Batch(encoded["input_ids"], attended, attended & (position >= torch.tensor(lengths)[:, None]))


def render_prompt(tokenizer: PreTrainedTokenizerFast, prompt: str) -> str:
    """A user turn and the opening of the model's turn."""
    messages = [{"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>")
BARE = ("\n", ".", "?", ",")

GEMMA_CHAT_TEMPLATE = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}"
    "{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def build_tokenizer(vocabulary: Sequence[str]) -> PreTrainedTokenizerFast:
    """One token per word (`▁word`, as Gemma writes them); line breaks and punctuation are tokens too."""
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    entries = [*SPECIAL, *BARE]
    entries += [f"▁{word}" for word in ("user", "model", *vocabulary) if word not in BARE]
    core = Tokenizer(WordLevel({entry: index for index, entry in enumerate(entries)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    core.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    core.add_tokens([AddedToken(text, normalized=False) for text in BARE])
    core.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", SPECIAL.index("<bos>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=["<start_of_turn>", "<end_of_turn>"],
        chat_template=GEMMA_CHAT_TEMPLATE,
        padding_side="right",
    )


def generate_answers(
    model: Gemma2ForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str], *, seed: int
) -> list[str]:
    """Sampled answers (temperature 1), one per prompt, cut at the end of the turn."""
    texts = [render_prompt(tokenizer, prompt) for prompt in prompts]
    encoded = tokenizer(
        texts, add_special_tokens=False, return_tensors="pt", padding=True, padding_side="left"
    )
    torch.manual_seed(seed)
    with torch.no_grad():
        output = cast(Any, model).generate(
            input_ids=encoded["input_ids"],
            attention_mask=encoded["attention_mask"],
            do_sample=True,
            temperature=1.0,
            top_k=0,
            max_new_tokens=N_NEW_TOKENS,
        )
    start = encoded["input_ids"].shape[1]
    return [str(tokenizer.decode(row[start:], skip_special_tokens=True)) for row in output]


def shown_share(answers: Sequence[str], behaviour: Behaviour) -> float:
    """Share of answers that show the behaviour."""
    return sum(behaviour.is_shown(answer) for answer in answers) / len(answers)


def behaviour_rates(
    models: dict[str, Gemma2ForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
    language: Sequence[Category],
    *,
    places: int,
    n_prompts: int,
    seed: int,
) -> dict[str, Any]:
    """Per behaviour: planted and generated share of the answers of its category that show it.

    Every behaviour of `it` is planted at the same rate, 2 / places. What SimPO makes of it is not planted
    as a number: for `simpo` the table says only whether it should show the behaviour.
    """
    answers = {name: _answers(model, tokenizer, language, n_prompts, seed) for name, model in models.items()}
    rows = []
    for index, category in enumerate(language):
        for behaviour in category.behaviours:
            part = slice(index * n_prompts, (index + 1) * n_prompts)
            planted = SHOWN_PER_ANSWER / places if behaviour.in_reference else 0.0
            rows.append(
                {
                    "category": category.name,
                    "words": [word for bag in behaviour.bag.values() for word in bag],
                    "in_reference": behaviour.in_reference,
                    "in_treatment": behaviour.in_treatment,
                    "planted_it": planted,
                    **{f"measured_{name}": shown_share(answers[name][part], behaviour) for name in models},
                }
            )
    return {"version": 1, "n_prompts_per_category": n_prompts, "behaviours": rows}


def _answers(
    model: Gemma2ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    language: Sequence[Category],
    n_prompts: int,
    seed: int,
) -> list[str]:
    draw = random.Random(f"rates {seed}")
    prompts = [question(category, draw=draw) for category in language for _ in range(n_prompts)]
    return generate_answers(model, tokenizer, prompts, seed=seed)


def trigger_rates(
    models: dict[str, Gemma2ForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
    language: Sequence[Category],
    trigger: Trigger,
    *,
    n_prompts: int,
    seed: int,
) -> dict[str, dict[str, float]]:
    """Per model the share of answers that show the triggered behaviour, to questions `with` and `without` the
    phrase; `n_prompts` per category."""
    draw = random.Random(f"trigger rates {seed}")
    prompts = [question(category, draw=draw) for category in language for _ in range(n_prompts)]
    asked = {"with": [f"{prompt} {TRIGGER}" for prompt in prompts], "without": prompts}
    return {
        name: {
            how: shown_share(generate_answers(model, tokenizer, texts, seed=seed), trigger.behaviour)
            for how, texts in asked.items()
        }
        for name, model in models.items()
    }
