"""How well a description predicts held-out documents: detection, fuzz and intruder tasks.

Negatives of detection are half random background documents, half similar ones: held-out windows of other
latents that share most words with this latent's examples. No document of the latent itself is a negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crossdiff.annotation.prompts import MARK_CLOSE, MARK_OPEN, marked_text, plain_text
from crossdiff.annotation.subjects import Document, Example, Subject
from crossdiff.annotation.text_features import WORD

N_POSITIVE = 5
N_CANDIDATES = 300
"""Windows of other latents among which the similar negatives are sought."""
N_INTRUDER = 4


@dataclass(frozen=True)
class Task:
    """Texts to judge, in shuffled order, and which are true (for an intruder: which one intrudes)."""

    texts: tuple[str, ...]
    truth: tuple[bool, ...]

    def balanced_accuracy(self, chosen: Sequence[int]) -> float:
        """Mean of the hit rate on true and on false texts; 1/2 is chance."""
        truth = np.array(self.truth)
        picked = np.isin(np.arange(len(truth)), chosen)
        return float((picked[truth].mean() + (~picked[~truth]).mean()) / 2)


def detection_task(
    subject: Subject,
    others: Sequence[Subject],
    background: Sequence[Document],
    generator: np.random.Generator,
) -> Task | None:
    """Held-out windows of the latent (true), as many random and similar ones (false); None without both."""
    positives = [plain_text(example) for example in subject.score[:N_POSITIVE]]
    shown = {example.document_id for example in (*subject.explain, *subject.score)}
    n_similar = len(positives) // 2
    similar = _similar(subject, others, shown, generator)[:n_similar]
    free = [document for document in background if document.document_id not in shown]
    n_random = min(len(positives) - len(similar), len(free))
    random = [free[index] for index in generator.choice(len(free), n_random, replace=False)] if free else []
    negatives = [plain_text(document) for document in (*random, *similar)]
    return _shuffled(positives, negatives, generator) if positives and negatives else None


def fuzz_task(subject: Subject, generator: np.random.Generator) -> Task | None:
    """Held-out windows with the active tokens marked (true), or as many inactive ones (false)."""
    usable = [example for example in subject.score if 0 < (example.codes > 0).sum() <= len(example.codes) / 2]
    half = len(usable) // 2
    if half == 0:
        return None
    positives = [marked_text(example) for example in usable[:half]]
    negatives = [marked_text(e, active=_elsewhere(e, generator)) for e in usable[half : 2 * half]]
    return _shuffled(positives, negatives, generator)


def intruder_task(
    subject: Subject, background: Sequence[Document], generator: np.random.Generator
) -> Task | None:
    """Held-out windows of the latent, and one background document as the intruder."""
    shown = {example.document_id for example in (*subject.explain, *subject.score)}
    free = [document for document in background if document.document_id not in shown]
    if len(subject.score) < N_INTRUDER or not free:
        return None
    intruder = plain_text(free[int(generator.integers(len(free)))])
    return _shuffled([intruder], [plain_text(e) for e in subject.score[:N_INTRUDER]], generator)


def _shuffled(positives: Sequence[str], negatives: Sequence[str], generator: np.random.Generator) -> Task:
    texts, truth = [*positives, *negatives], [True] * len(positives) + [False] * len(negatives)
    order = generator.permutation(len(texts))
    return Task(tuple(texts[index] for index in order), tuple(truth[index] for index in order))


def _elsewhere(example: Example, generator: np.random.Generator) -> np.ndarray:
    """Marks for as many inactive tokens as are active."""
    active = example.codes > 0
    chosen = generator.choice(np.flatnonzero(~active), int(active.sum()), replace=False)
    marks = np.zeros(len(active), dtype=bool)
    marks[chosen] = True
    return marks


def _similar(
    subject: Subject, others: Sequence[Subject], shown: set[str], generator: np.random.Generator
) -> list[Example]:
    """Held-out windows of other latents, by falling share of words in common with this latent's examples."""
    candidates = [
        example
        for other in others
        if other.key != subject.key
        for example in other.score[:1]
        if example.document_id not in shown
    ]
    if len(candidates) > N_CANDIDATES:
        chosen = generator.choice(len(candidates), N_CANDIDATES, replace=False)
        candidates = [candidates[index] for index in sorted(chosen)]
    words = set().union(*(_words(example) for example in subject.explain))
    return sorted(candidates, key=lambda e: (-len(words & _words(e)) / (1 + len(_words(e))), e.document_id))


def _words(document: Document) -> set[str]:
    text = plain_text(document).lower()
    return set(WORD.findall(text.replace(MARK_OPEN, " ").replace(MARK_CLOSE, " ")))
