"""The annotator with a local model: calibrated log-likelihood for the category, greedy label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any, Literal, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from crossdiff.annotation.api.messages import chosen_examples
from crossdiff.annotation.prompts import Framing, clean, describe_user, document_blocks
from crossdiff.annotation.results import Annotation, Answer
from crossdiff.annotation.schema import MAX_LABEL, one_line
from crossdiff.annotation.settings import Transformers
from crossdiff.annotation.subjects import CategoryLike, Said, Subject
from crossdiff.taxonomy.scheme import OTHER, UNINTERPRETABLE

CONTENT_FREE = "N/A"
"""Replaces the examples in the prompt that measures the model's leaning without any."""
MIN_EXAMPLE_TOKENS = 32
"""Least tokens of examples that a model's positions must leave."""
_ASK_CATEGORY = (
    "The documents below show, between « and », where a hidden unit of a language model is active. "
    "Name the one category that fits what the marked places have in common.\n\n{examples}\n\nCategory:"
)
_ASK_FRAMED: dict[Framing, str] = {
    "presupposing": (
        "The documents below show, between « and », where a hidden unit of a language model is active. "
        "The unit responds to one concept. Name the category to which it belongs.\n\n{examples}"
        "\n\nCategory:"
    ),
    "neutral": (
        "The documents below show, between « and », where a hidden unit of a language model is active. "
        "The marked places may have something in common, or nothing. Name the category that fits, or say "
        "Other or Uninterpretable, which are full answers.\n\n{examples}\n\nCategory:"
    ),
}
_ASK_LABEL = (
    "The documents below show, between « and », where a hidden unit of a language model is active. "
    "Say in at most eight words what the marked places have in common.\n\n{examples}\n\nAnswer:"
)


_ASK_SHOWN = (
    "Below are a question and what a chat model answered. Does the answer show this behaviour: {behaviour}"
    "\n\n{examples}\n\nAnswer (Yes or No):"
)


class LocalReader:
    """Log-likelihoods that a local model gives to fixed answers after a prompt."""

    answers: list[list[int]]

    def __init__(self, settings: Transformers, *, device: str) -> None:
        self.settings, self.device = settings, torch.device(device)
        self.tokenizer, self.model = _load(settings, self.device)
        text = self.model.config.get_text_config(decoder=True)
        self.n_positions: int | None = getattr(text, "max_position_embeddings", None)
        self.name = f"transformers {settings.path.rstrip('/').split('/')[-1]}"

    def _prompt(self, template: str, examples: str) -> Int[Tensor, "1 token"]:
        """Prompt ids; examples are cut from the left so that the question stays whole."""
        head, tail = template.split("{examples}")
        if self.tokenizer.chat_template:
            asked = head + "\x00" + tail.rsplit("\n\n", 1)[0]
            text = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": asked}], tokenize=False, add_generation_prompt=True
            )
            head, tail = text.split("\x00")
            tail += template.rsplit("\n\n", 1)[1]
        before, after = self._ids(head), self._ids(tail)
        room = self._room(len(before) + len(after))
        ids = [*before, *self._ids(examples)[-room:], *after]
        return torch.tensor([ids], device=self.device)

    def _room(self, n_question: int) -> int:
        """Tokens left for examples by settings and positions, beside question and answer."""
        room = max(self.settings.max_prompt_tokens - n_question, 1)
        if self.n_positions is None:
            return room
        longest = max(self.settings.max_label_tokens, *map(len, self.answers))
        left = self.n_positions - longest - n_question
        if left < MIN_EXAMPLE_TOKENS:
            raise ValueError(
                f"annotator.path={self.settings.path} has {self.n_positions} positions; question and answer "
                f"take {n_question + longest}, which leaves too few for examples; give a model with more"
            )
        return min(room, left)

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    @torch.inference_mode()
    def _scores(self, prompt: Int[Tensor, "1 token"]) -> Float[Tensor, " category"]:
        """Mean log-probability per token of every category title after the prompt, in nats."""
        read = self.model(prompt, use_cache=True)
        first = read.logits[:, -1].float().log_softmax(-1)[0]
        length = max(len(ids) for ids in self.answers)
        padded = torch.zeros(len(self.answers), length, dtype=torch.long, device=self.device)
        for row, ids in enumerate(self.answers):
            padded[row, : len(ids)] = torch.tensor(ids, device=self.device)
        cache = read.past_key_values
        cache.batch_repeat_interleave(len(self.answers))
        later = self.model(padded, past_key_values=cache, use_cache=True).logits.float().log_softmax(-1)
        sums = [
            first[ids[0]] + sum(later[row, place, ids[place + 1]] for place in range(len(ids) - 1))
            for row, ids in enumerate(self.answers)
        ]
        lengths = torch.tensor([len(ids) for ids in self.answers], device=self.device)
        return torch.stack([torch.as_tensor(value) for value in sums]) / lengths


class TransformersAnnotator(LocalReader):
    """Scores every category name after the examples; nothing leaves the machine."""

    writes_labels = True

    def __init__(self, settings: Transformers, scheme: Sequence[CategoryLike], *, device: str) -> None:
        super().__init__(settings, device=device)
        self.names = (*(category.name for category in scheme), OTHER, UNINTERPRETABLE)
        titles = [category.title for category in scheme]
        self.answers = [self._ids(f" {title}") for title in (*titles, "Other", "Uninterpretable")]
        self.ask = _ASK_CATEGORY
        self.leaning = self._scores(self._prompt(self.ask, CONTENT_FREE))

    def framed(self, framing: Framing) -> TransformersAnnotator:
        """The same model asked in other words; no label is written, for only its category counts."""
        other = copy(self)
        other.ask, other.writes_labels = _ASK_FRAMED[framing], False
        other.leaning = self._scores(self._prompt(other.ask, CONTENT_FREE))
        return other

    def annotate(self, subjects: Sequence[Subject]) -> Iterator[Annotation]:
        """One annotation per subject, in order; a subject without examples is uninterpretable."""
        for subject in subjects:
            yield self._annotate(subject)

    @torch.inference_mode()
    def _annotate(self, subject: Subject) -> Annotation:
        if not subject.explain:
            return Annotation(subject.key, "uninterpretable", self.name, category=UNINTERPRETABLE)
        chosen = [subject.explain[i] for i in chosen_examples(subject.explain, self.settings.n_examples)]
        examples = describe_user(chosen)
        scores = (self._scores(self._prompt(self.ask, examples)) - self.leaning).cpu().numpy()
        best = int(scores.argmax())
        category = self.names[best]
        return Annotation(
            key=subject.key,
            state="uninterpretable" if category == UNINTERPRETABLE else "ok",
            annotator=self.name,
            label=self._label(examples) if self.writes_labels else None,
            description=None,
            category=category,
            votes={category: 1.0},
            confidence=_confidence(scores),
        )

    def _label(self, examples: str) -> str | None:
        """The first line of greedy text; None where it has nothing printable."""
        prompt = self._prompt(_ASK_LABEL, examples)
        written = self.model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=self.settings.max_label_tokens,
            do_sample=False,
            pad_token_id=self.tokenizer.pad_token_id or 0,
        )[0, prompt.shape[1] :]
        text = self.tokenizer.decode(written, skip_special_tokens=True).strip()
        return one_line(text.split("\n")[0])[:MAX_LABEL] or None


class TransformersJudge(LocalReader):
    """Yes or No after a question and its answer, less the model's leaning without either."""

    def __init__(self, settings: Transformers, *, device: str) -> None:
        super().__init__(settings, device=device)
        self.answers = [self._ids(" Yes"), self._ids(" No")]
        self.leanings: dict[str, Float[Tensor, " answer"]] = {}

    def judge(self, said: Sequence[Said]) -> list[Answer[bool]]:
        """One verdict per answer, in order."""
        return [Answer("ok", self.name, self._shown(answer)) for answer in said]

    def _shown(self, said: Said) -> bool:
        template = _ASK_SHOWN.replace("{behaviour}", said.behaviour)
        if said.behaviour not in self.leanings:
            self.leanings[said.behaviour] = self._scores(self._prompt(template, CONTENT_FREE))
        blocks = document_blocks([clean(said.prompt), clean(said.answer)])
        yes, no = (self._scores(self._prompt(template, blocks)) - self.leanings[said.behaviour]).tolist()
        return yes > no


def _load(settings: Transformers, device: torch.device) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM

    from crossdiff.models.hub import hub
    from crossdiff.models.tokenizers import load_tokenizer

    tokenizer = load_tokenizer(settings.path, revision=settings.revision)
    with hub(settings.path, way_out="set annotator.path to a local folder, or use annotator=lexical"):
        model: Any = AutoModelForCausalLM.from_pretrained(
            settings.path, revision=settings.revision, dtype=getattr(torch, settings.dtype)
        )
    return tokenizer, model.to(device).eval()


def _confidence(scores: np.ndarray) -> Literal[1, 2, 3, 4, 5]:
    """1 to 5: the lead of the best category over the second, in quarters of a nat per token."""
    second, first = np.sort(scores)[-2:]
    return cast(Literal[1, 2, 3, 4, 5], int(np.clip(1 + (first - second) // 0.25, 1, 5)))
