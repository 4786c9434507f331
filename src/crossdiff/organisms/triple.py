"""The toy triple: three models that share a tokenizer, trained one from the other."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from crossdiff.organisms.language import Category
from crossdiff.organisms.models import build_model
from crossdiff.organisms.phases import fine_tune, prefer, pretrain
from crossdiff.organisms.settings import ToySettings
from crossdiff.organisms.tokenizer import build_tokenizer
from crossdiff.organisms.vocabulary import vocabulary

if TYPE_CHECKING:
    from transformers import Gemma2ForCausalLM, PreTrainedTokenizerFast


@dataclass(frozen=True)
class Triple:
    """`models` holds pt, it and simpo; `losses` the mean training loss of each one's last steps."""

    tokenizer: PreTrainedTokenizerFast
    models: dict[str, Gemma2ForCausalLM]
    losses: dict[str, float]


def train_triple(language: Sequence[Category], settings: ToySettings, *, progress: bool = True) -> Triple:
    """pt on web documents, it from pt on chats, simpo from it on preference pairs; a function of the seed."""
    tokenizer = build_tokenizer(vocabulary())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = build_model(settings, tokenizer)
        losses = {"pt": pretrain(model, tokenizer, language, settings, progress=progress)}
        models = {"pt": copy.deepcopy(model)}
        anchor = {name: weight.detach() for name, weight in models["pt"].named_parameters()}
        for name, phase in (("it", fine_tune), ("simpo", prefer)):
            losses[name] = phase(model, tokenizer, language, settings, anchor=anchor, progress=progress)
            models[name] = copy.deepcopy(model)
    return Triple(tokenizer, models, losses)
