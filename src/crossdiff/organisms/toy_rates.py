"""How often a model's own answers show each behaviour."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch

from crossdiff.organisms.documents import SHOWN_PER_ANSWER, question
from crossdiff.organisms.language import Behaviour, Category
from crossdiff.organisms.models import render_prompt

if TYPE_CHECKING:
    from transformers import Gemma2ForCausalLM, PreTrainedTokenizerFast

N_NEW_TOKENS = 36


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
