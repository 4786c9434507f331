"""The annotator behind claude, claude_batch, anthropic_compatible and replay: describe, vote, score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from crossdiff.annotation import prompts, schema, scoring
from crossdiff.annotation.api.requests import Request, sha256
from crossdiff.annotation.api.rounds import LEXICAL, Question, Rounds
from crossdiff.annotation.lexical import LexicalAnnotator
from crossdiff.annotation.results import Annotation, Answer, combine
from crossdiff.annotation.schema import Described, Unreadable
from crossdiff.annotation.settings import AnthropicCompatible, Lexical, MessagesSettings
from crossdiff.annotation.subjects import CategoryLike, Document, Example, Subject
from crossdiff.taxonomy.scheme import UNINTERPRETABLE

SCORE_TOKENS = 256


@dataclass
class MessagesAnnotator:
    """Labels latents by questions to a server; equal inputs give equal questions in equal order."""

    settings: MessagesSettings
    scheme: Sequence[CategoryLike]
    background: Sequence[Document]
    rounds: Rounds
    seed: int
    masked: bool = False
    framing: prompts.Framing | None = None

    def annotate(self, subjects: Sequence[Subject]) -> list[Annotation]:
        """Votes, then scores of described latents, then the lexical fallback for refused ones.

        A subject without examples is uninterpretable, without a question.
        """
        annotated = iter(self._annotated([subject for subject in subjects if subject.explain]))
        return [
            next(annotated)
            if subject.explain
            else Annotation(subject.key, "uninterpretable", self.settings.model, category=UNINTERPRETABLE)
            for subject in subjects
        ]

    def _annotated(self, subjects: Sequence[Subject]) -> list[Annotation]:
        votes = self.describe(subjects)
        annotations = [
            combine(subject.key, answers) for subject, answers in zip(subjects, votes, strict=True)
        ]
        for kind in self.settings.scores:
            annotations = self._scored(subjects, annotations, kind)
        return (
            self._lexical_fallback(subjects, annotations)
            if LEXICAL in self.settings.fallback
            else annotations
        )

    def describe(self, subjects: Sequence[Subject]) -> list[list[Answer[Described]]]:
        """`n_votes` answers per subject, each with its examples in another order."""
        questions = [
            self._describe(subject, vote) for subject in subjects for vote in range(self.settings.n_votes)
        ]
        requests = [question.build(self.settings.model, False) for question in questions]
        self.rounds.announce(requests, what="descriptions (scores come on top)")
        answers = self.rounds.ask(questions, description="describe")
        n_votes = self.settings.n_votes
        return [answers[start : start + n_votes] for start in range(0, len(answers), n_votes)]

    def _describe(self, subject: Subject, vote: int) -> Question[Described]:
        chosen = chosen_examples(subject.explain, self.settings.n_examples)
        order = np.random.default_rng([self.seed, int(subject.key), vote]).permutation(len(chosen))
        shuffled = [subject.explain[chosen[place]] for place in order]
        names = [category.name for category in self.scheme]

        def build(model: str, masked: bool) -> Request:
            return self._request(
                "describe",
                subject,
                model=model,
                system=prompts.describe_system(self.scheme, framing=self.framing),
                user=prompts.describe_user(shuffled, masked=masked or self.masked),
                schema=schema.describe_schema(names),
                vote=vote,
            )

        def read(message: Mapping[str, Any]) -> Described | Unreadable:
            vote = schema.read_described(message, categories=names, n_examples=len(shuffled))
            if isinstance(vote, Unreadable):
                return vote
            places = tuple(sorted(chosen[order[index]] for index in vote.evidence))
            return replace(vote, evidence=places)

        return Question(build, read)

    def _scored(
        self, subjects: Sequence[Subject], annotations: Sequence[Annotation], kind: str
    ) -> list[Annotation]:
        """The annotations with one more score; None where it cannot be computed."""
        tasks = {
            index: task
            for index, (subject, annotation) in enumerate(zip(subjects, annotations, strict=True))
            if annotation.state == "ok"
            for task in [self._task(kind, subject, subjects)]
            if task is not None
        }
        questions = [self._score(kind, subjects[i], annotations[i], task) for i, task in tasks.items()]
        answers = self.rounds.ask(questions, description=kind)
        scores = {index: answer.value for index, answer in zip(tasks, answers, strict=True)}
        return [
            replace(annotation, scores={**annotation.scores, kind: scores.get(index)})
            if annotation.state == "ok"
            else annotation
            for index, annotation in enumerate(annotations)
        ]

    def _task(self, kind: str, subject: Subject, subjects: Sequence[Subject]) -> scoring.Task | None:
        generator = np.random.default_rng([self.seed, int(subject.key), sum(kind.encode())])
        match kind:
            case "detection":
                return scoring.detection_task(subject, subjects, self.background, generator)
            case "fuzz":
                return scoring.fuzz_task(subject, generator)
            case _:
                return scoring.intruder_task(subject, self.background, generator)

    def _score(
        self, kind: str, subject: Subject, annotation: Annotation, task: scoring.Task
    ) -> Question[float]:
        n_documents = len(task.texts)
        label, description = annotation.label or "", annotation.description or ""
        system = {
            "detection": partial(prompts.detection_prompt, label, description),
            "fuzz": partial(prompts.fuzz_prompt, label, description),
            "intruder": lambda: prompts.INTRUDER,
        }[kind]()
        intruder = kind == "intruder"
        wanted = schema.intruder_schema(n_documents) if intruder else schema.matches_schema()

        def build(model: str, masked: bool) -> Request:
            user = prompts.document_blocks(task.texts)
            return self._request(kind, subject, model=model, system=system, user=user, schema=wanted, vote=0)

        def read(message: Mapping[str, Any]) -> float | Unreadable:
            if intruder:
                index = schema.read_intruder(message, n_documents=n_documents)
                return index if isinstance(index, Unreadable) else float(task.truth[index])
            chosen = schema.read_matches(message, n_documents=n_documents)
            return chosen if isinstance(chosen, Unreadable) else task.balanced_accuracy(chosen)

        return Question(build, read)

    def _request(
        self, purpose: str, subject: Subject, *, model: str, system: str, user: str, schema: dict, vote: int
    ) -> Request:
        provider, structured = provider_of(self.settings)
        return Request(
            purpose=purpose,
            provider=provider,
            model=model,
            system=system,
            messages=(("user", user),),
            schema=schema,
            effort=self.settings.effort,
            max_tokens=self.settings.max_tokens if purpose == "describe" else SCORE_TOKENS,
            vote=vote,
            example_set=example_set_hash(subject),
            structured=structured,
        )

    def _lexical_fallback(
        self, subjects: Sequence[Subject], annotations: Sequence[Annotation]
    ) -> list[Annotation]:
        """Lexical annotations for latents that every model refused, marked in `annotator`."""
        lexical = LexicalAnnotator(Lexical(), self.scheme, self.background, seed=self.seed)
        name = f"lexical (refused by {self.settings.model})"
        return [
            replace(next(lexical.annotate([subject])), annotator=name)
            if annotation.state == "refused"
            else annotation
            for subject, annotation in zip(subjects, annotations, strict=True)
        ]


def provider_of(settings: MessagesSettings) -> tuple[str, bool]:
    """The provider's name in the ledger's keys, and whether the reply schema is sent."""
    if isinstance(settings, AnthropicCompatible):
        return f"anthropic_compatible {settings.base_url}", settings.structured
    return "anthropic", True


def chosen_examples(examples: Sequence[Example], n_examples: int) -> list[int]:
    """Indices of at most `n_examples`: half top activations, half quantiles, each in rank order."""
    top = [index for index, example in enumerate(examples) if example.quantile < 0]
    spread = [index for index, example in enumerate(examples) if example.quantile >= 0]
    n_top = min(len(top), max(n_examples - n_examples // 2, n_examples - len(spread)))
    return sorted(top[:n_top] + spread[: n_examples - n_top])


def example_set_hash(subject: Subject) -> str:
    """Hash of a subject's documents, tokens and codes."""
    parts = [
        f"{example.document_id}|{''.join(example.tokens)}|{example.codes.tobytes().hex()}"
        for example in (*subject.explain, *subject.score)
    ]
    return sha256("\n".join(parts))[:16]
