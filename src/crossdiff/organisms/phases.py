"""The successive training runs of the toy triple: pretraining, supervised fine-tuning, SimPO."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from crossdiff.io.progress import track
from crossdiff.organisms.documents import Trigger, some_chat, some_preferences, web_document
from crossdiff.organisms.language import Category, vocabulary
from crossdiff.organisms.models import Batch, build_model, build_tokenizer, chat_batch, text_batch
from crossdiff.organisms.settings import PhaseSettings, SimPOSettings, ToySettings

if TYPE_CHECKING:
    from transformers import Gemma2ForCausalLM, PreTrainedTokenizerFast


WARMUP_SHARE = 0.05


def pretrain(
    model: Gemma2ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    language: Sequence[Category],
    settings: ToySettings,
    *,
    progress: bool = True,
) -> float:
    """Next-token training on web documents only; returns the mean loss of the last tenth (nats per token)."""
    draw = random.Random(f"pretraining {settings.seed}")

    def step() -> Float[Tensor, ""]:
        texts = [
            web_document(draw.choice(language), draw=draw) for _ in range(settings.pretraining.batch_size)
        ]
        return answer_loss(model, text_batch(tokenizer, texts))

    return descend(
        model, settings.pretraining, step, description="organism: pretraining pt", progress=progress
    )


def fine_tune(
    model: Gemma2ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    language: Sequence[Category],
    settings: ToySettings,
    *,
    anchor: dict[str, Tensor],
    number: int = 1,
    progress: bool = True,
) -> float:
    """Supervised fine-tuning on chats that show the behaviours of `it`; loss on answers only.

    `number` is the tuning of pt; each draws other chats and replayed documents.
    """
    draw = random.Random(f"tuning {settings.seed}" + (f" number {number}" if number > 1 else ""))
    behaviours = [item for category in language for item in category.behaviours if item.in_reference]
    trigger = Trigger.of(settings)

    def step() -> Float[Tensor, ""]:
        drawn = [
            some_chat(language, behaviours, trigger, places=settings.places, draw=draw)
            for _ in range(settings.tuning.batch_size)
        ]
        prompts, answers = ([messages[turn]["content"] for messages in drawn] for turn in (0, 1))
        loss = answer_loss(model, chat_batch(tokenizer, prompts, answers))
        return loss + replay_loss(model, tokenizer, language, settings.tuning, draw=draw)

    return descend(
        model, settings.tuning, step, anchor=anchor, description="organism: fine-tuning it", progress=progress
    )


def prefer(
    model: Gemma2ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    language: Sequence[Category],
    settings: ToySettings,
    *,
    anchor: dict[str, Tensor],
    progress: bool = True,
) -> float:
    """SimPO with an SFT term on the chosen answers, starting from `it`."""
    draw, trigger = random.Random(f"preference {settings.seed}"), Trigger.of(settings)
    n_pairs, places = settings.preference.batch_size, settings.places

    def step() -> Float[Tensor, ""]:
        pairs = some_preferences(language, trigger, n_pairs, places=places, draw=draw)
        prompts = [pair.prompt for pair in pairs]
        answers = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
        loss = preference_loss(model, chat_batch(tokenizer, prompts * 2, answers), settings.simpo)
        return loss + replay_loss(model, tokenizer, language, settings.preference, draw=draw)

    return descend(
        model, settings.preference, step, anchor=anchor, description="organism: SimPO", progress=progress
    )


def answer_loss(model: Gemma2ForCausalLM, batch: Batch) -> Float[Tensor, ""]:
    """Mean negative log-probability of the target tokens (nats per token)."""
    log_probabilities = _log_probabilities(model, batch)
    kept = batch.target[:, 1:]
    return -(log_probabilities * kept).sum() / kept.sum()


def replay_loss(
    model: Gemma2ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    language: Sequence[Category],
    phase: PhaseSettings,
    *,
    draw: random.Random,
) -> Tensor | float:
    """Loss on web documents that are mixed into a later phase."""
    n = round(phase.web_share * phase.batch_size)
    if not n:
        return 0.0
    texts = [web_document(draw.choice(language), draw=draw) for _ in range(n)]
    return phase.web_share * answer_loss(model, text_batch(tokenizer, texts))


def preference_loss(model: Gemma2ForCausalLM, batch: Batch, settings: SimPOSettings) -> Float[Tensor, ""]:
    """SimPO over a batch whose first half is chosen and second half rejected, plus the SFT term."""
    log_probabilities = _log_probabilities(model, batch)
    chosen, rejected = mean_log_probability(log_probabilities, batch.target).chunk(2)
    supervised = -chosen.mean()
    return (
        simpo_loss(chosen, rejected, beta=settings.beta, gamma=settings.gamma)
        + settings.sft_weight * supervised
    )


def descend(
    model: Gemma2ForCausalLM,
    phase: PhaseSettings,
    step: Callable[[], Float[Tensor, ""]],
    *,
    description: str,
    anchor: dict[str, Tensor] | None = None,
    progress: bool = True,
) -> float:
    """AdamW with warm-up and cosine decay to a tenth; returns the mean loss of the last tenth."""
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=phase.learning_rate,
        weight_decay=phase.weight_decay,
        betas=(0.9, 0.98),
        eps=phase.adam_epsilon,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda number: _rate(number, phase.n_steps))
    losses = []
    model.train()
    for _ in track(
        range(phase.n_steps), total=phase.n_steps, description=description, unit="step", enabled=progress
    ):
        loss = step()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if phase.anchor and anchor is not None:
            _pull(model, anchor, float(schedule.get_last_lr()[0]) * phase.anchor)
        schedule.step()
        losses.append(loss.item())
    model.eval()
    tail = losses[-max(1, len(losses) // 10) :]
    return sum(tail) / len(tail)


@torch.no_grad()
def _pull(model: Gemma2ForCausalLM, anchor: dict[str, Tensor], share: float) -> None:
    for name, weight in model.named_parameters():
        weight.lerp_(anchor[name], share)


def _rate(number: int, n_steps: int) -> float:
    warmup = max(1, round(WARMUP_SHARE * n_steps))
    if number < warmup:
        return (number + 1) / warmup
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (number - warmup) / max(1, n_steps - warmup)))


def _log_probabilities(model: Gemma2ForCausalLM, batch: Batch) -> Float[Tensor, "document token-1"]:
    logits = model(input_ids=batch.ids, attention_mask=batch.attended.long(), use_cache=False).logits
    return token_log_probabilities(logits, batch.ids)


def token_log_probabilities(
    logits: Float[Tensor, "document token vocabulary"], ids: Int[Tensor, "document token"]
) -> Float[Tensor, "document token-1"]:
    """log pi(ids[t+1] | ids[:t+1]); entry t belongs to token t+1."""
    flat = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    return -flat.view(ids.shape[0], -1)


def mean_log_probability(
    log_probabilities: Float[Tensor, "document token-1"], answer: Bool[Tensor, "document token"]
) -> Float[Tensor, " document"]:
    """Length-normalised log-probability of each document's answer tokens (nats per token)."""
    kept = answer[:, 1:]
    return (log_probabilities * kept).sum(1) / kept.sum(1)


def simpo_loss(
    chosen: Float[Tensor, " pair"], rejected: Float[Tensor, " pair"], *, beta: float, gamma: float
) -> Float[Tensor, ""]:
    """Mean over pairs of -log sigmoid(beta * chosen - beta * rejected - gamma).

    `chosen` and `rejected` are length-normalised log-probabilities log pi(y|x) / |y|
    (Meng, Xia and Chen, arXiv 2405.14734, equation 6); there is no reference model.
    """
    return -F.logsigmoid(beta * (chosen - rejected) - gamma).mean()


@dataclass(frozen=True)
class Triple:
    """`models` holds pt, it and simpo; `losses` the mean training loss of their last steps."""

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
