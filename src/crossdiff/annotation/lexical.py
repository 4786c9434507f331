"""The annotator that needs no model: activation-weighted class TF-IDF and cue words.

Every document votes once, and counts by the square of its peak code. Keywords are words near the activity
that are rare in background documents; the category is the one whose cue words most documents hold, beyond
what background documents hold of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from crossdiff.annotation.cues import CueIndex, inverse_document_frequency, signal_term, stems
from crossdiff.annotation.results import OTHER, UNINTERPRETABLE, Annotation
from crossdiff.annotation.settings import Lexical
from crossdiff.annotation.subjects import CategoryLike, Document, Example, Subject
from crossdiff.annotation.text_features import signals
from crossdiff.annotation.tokens_to_words import nearness, text_of, word_weights

NAME = "lexical"
Votes = NDArray[np.float64]


@dataclass(frozen=True)
class _Reading:
    """One document: words near the activity, its vote (category shares; all 0 = abstains), its peak code."""

    words: dict[str, float]
    signals: list[str]
    vote: Votes
    peak: float


class LexicalAnnotator:
    """Built once per job from the scheme and the background documents; `annotate` is then pure."""

    def __init__(
        self, settings: Lexical, scheme: Sequence[CategoryLike], background: Sequence[Document], *, seed: int
    ) -> None:
        self.settings, self.seed = settings, seed
        self.cues = CueIndex(scheme, definition_weight=settings.definition_weight)
        plain = [_flat_words(document) for document in background]
        self.word_rarity, _ = inverse_document_frequency(plain)
        by_stem = [stems(words) for words in plain]
        self.stem_rarity, _ = inverse_document_frequency(by_stem)
        votes = [self._vote(terms) for terms in by_stem]
        self.expected: Votes = np.mean(votes, axis=0) if votes else np.zeros(len(self.cues.names))

    def annotate(self, subjects: Sequence[Subject]) -> Iterator[Annotation]:
        """One annotation per subject, in order."""
        for index, subject in enumerate(subjects):
            yield self._annotate(subject, np.random.default_rng([self.seed, index]))

    def _annotate(self, subject: Subject, generator: np.random.Generator) -> Annotation:
        readings = [self._read(example) for example in subject.explain]
        keywords = self._keywords(readings)
        votes = np.array([reading.vote for reading in readings]).reshape(len(readings), len(self.cues.names))
        weights = _energies(readings)
        winner = int(self._decide(votes[None], weights[None])[0])
        if winner < 0 and not keywords:
            return Annotation(
                subject.key, "uninterpretable", NAME, category=UNINTERPRETABLE, votes={UNINTERPRETABLE: 1.0}
            )
        top = float(_shares(votes, weights)[winner]) if winner >= 0 else 0.0
        evidence = np.flatnonzero(votes.argmax(1) == winner) if winner >= 0 else np.array([], dtype=int)
        evidence = [int(i) for i in evidence if votes[i].any()]
        return Annotation(
            key=subject.key,
            state="ok",
            annotator=NAME,
            label=", ".join(keywords[:3]) or self.cues.names[winner],
            description=_describe(readings, keywords),
            category=self.cues.names[winner] if winner >= 0 else OTHER,
            votes=self._resampled(votes, weights, generator),
            confidence=cast(Literal[1, 2, 3, 4, 5], int(np.clip(np.ceil(5 * top), 1, 5))),
            keywords=tuple(keywords),
            evidence=tuple(evidence),
        )

    def _read(self, example: Example) -> _Reading:
        text, ends = text_of(example)
        near = word_weights(text, ends, nearness(example, decay=self.settings.decay))
        on = signals(example, text)
        floor = self.settings.floor
        terms = {term: floor + (1 - floor) * weight for term, weight in stems(near).items()}
        terms |= {signal_term(name): 1.0 for name in on}
        return _Reading(
            words=near, signals=on, vote=self._vote(terms), peak=float(example.codes.max(initial=0.0))
        )

    def _vote(self, terms: dict[str, float]) -> Votes:
        """A document's evidence as shares over categories; zeros when it holds none."""
        found = self.cues.evidence(terms, self.stem_rarity) ** 2
        total = found.sum()
        return found / total if total > 0 else found

    def _keywords(self, readings: Sequence[_Reading]) -> list[str]:
        """Words by mean weight over documents x rarity, among those that enough documents support."""
        weight: Counter[str] = Counter()
        support: Counter[str] = Counter()
        for reading in readings:
            for word, value in reading.words.items():
                if value > _NEAR:
                    support[word] += 1
                    weight[word] += value  # type: ignore[assignment]
        scored = {
            word: weight[word] * self.word_rarity.get(word, 1.0)
            for word, count in support.items()
            if count >= self.settings.min_documents and self.word_rarity.get(word, 1.0) > 0
        }
        return sorted(scored, key=lambda word: (-scored[word], word))[: self.settings.n_keywords]

    def _decide(self, votes: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.int64]:
        """Winning category per stack of votes [stack document category] and weights [stack document].

        The category with the largest gain over background documents; -1 where none is clear.
        """
        if 0 in votes.shape[1:]:
            return np.full(len(votes), -1)
        weighted = np.einsum("sdc,sd->sc", votes, weights)
        gain = weighted - weights.sum(1, keepdims=True) * self.expected
        winner = gain.argmax(-1)
        total = weighted.sum(-1)
        share = np.take_along_axis(weighted, winner[:, None], 1)[:, 0] / np.maximum(total, 1e-12)
        speaks = votes.any(-1) & (votes.argmax(-1) == winner[:, None])
        clear = (share >= self.settings.min_share) & (speaks.sum(1) >= self.settings.min_documents)
        return np.where(clear & (gain.max(-1) > 0), winner, -1)

    def _resampled(
        self, votes: Votes, weights: NDArray[np.float64], generator: np.random.Generator
    ) -> dict[str, float]:
        """Share of each answer when the documents are drawn again with replacement."""
        n_documents, n_resamples = len(votes), self.settings.n_resamples
        if n_documents == 0 or n_resamples == 0:
            return {}
        drawn = generator.integers(n_documents, size=(n_resamples, n_documents))
        names = (*self.cues.names, OTHER)
        counts = Counter(names[winner] for winner in self._decide(votes[drawn], weights[drawn]).tolist())
        return {name: count / n_resamples for name, count in sorted(counts.items())}


_NEAR = 0.05
"""Weight below which a word counts as far from the activity."""


def _flat_words(document: Document) -> dict[str, float]:
    text, ends = text_of(document)
    words = word_weights(text, ends, np.ones(len(document.tokens), dtype=np.float32))
    return words | {signal_term(name): 1.0 for name in signals(document, text)}


def _energies(readings: Sequence[_Reading]) -> NDArray[np.float64]:
    """The square of each peak code over the largest: documents that fire it hardest say most about it."""
    peaks = np.array([reading.peak for reading in readings])
    largest = float(peaks.max(initial=0.0))
    return (peaks / largest) ** 2 if largest > 0 else np.ones(len(peaks))


def _shares(votes: Votes, weights: NDArray[np.float64]) -> Votes:
    weighted = weights @ votes
    return weighted / max(float(weighted.sum()), 1e-12)


def _describe(readings: Sequence[_Reading], keywords: Sequence[str]) -> str:
    """Keywords and the signals that most documents show."""
    on = Counter(name for reading in readings for name in reading.signals)
    often = [name for name, count in on.most_common() if count > len(readings) / 2]
    words = f"words near the activity: {', '.join(keywords)}" if keywords else "no word in enough documents"
    return words + (f"; the text is mostly: {', '.join(often)}" if often else "")
