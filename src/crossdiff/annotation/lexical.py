"""The annotator that needs no model: activation-weighted class TF-IDF and cue words.

Every document (of near-identical ones the first) votes with the square of its peak code as weight. The label
is the phrase at most peaks, then words near the activity that are rare in background documents. The category
is that of the habit at most peaks (a refusal, a closing line, a mark that opens a line; `other` where the
taxonomy has none for it). Without a habit it is the one with the most cue words, more than two standard
errors above background documents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, KeysView, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from crossdiff.annotation.cues import STOP_WORDS, CueIndex, inverse_document_frequency, signal_term, stems
from crossdiff.annotation.results import Annotation
from crossdiff.annotation.settings import Lexical
from crossdiff.annotation.subjects import CategoryLike, Document, Example, Subject
from crossdiff.annotation.text_features import (
    HABITS,
    FeatureCache,
    common_phrase,
    main_habit,
    nearness,
    signals,
    text_of,
    word_weights,
)
from crossdiff.taxonomy.scheme import OTHER, UNINTERPRETABLE

NAME = "lexical"
Votes = NDArray[np.float64]
Places = NDArray[np.int64]
"""Indices of habits (into HABITS) or categories; -1: none."""


@dataclass(frozen=True)
class _Reading:
    """One document: words near the activity, its vote (category shares; 0 = abstains), its peak."""

    words: dict[str, float]
    signals: list[str]
    vote: Votes
    peak: float
    phrases: frozenset[tuple[str, ...]]
    habit: str | None


class LexicalAnnotator:
    """Labels latents by keywords; built once per run from the scheme and the background documents."""

    def __init__(
        self,
        settings: Lexical,
        scheme: Sequence[CategoryLike],
        background: Sequence[Document],
        *,
        seed: int,
        features: FeatureCache | None = None,
    ) -> None:
        self.settings, self.seed = settings, seed
        self.features = features or FeatureCache()
        self.cues = CueIndex(scheme, definition_weight=settings.definition_weight)
        plain = [_flat_words(document) for document in background]
        self.word_rarity = inverse_document_frequency(plain)
        by_stem = [stems(words) for words in plain]
        self.stem_rarity = inverse_document_frequency(by_stem)
        votes = [self._vote(terms) for terms in by_stem]
        self.expected: Votes = np.mean(votes, axis=0) if votes else np.zeros(len(self.cues.names))

    def annotate(self, subjects: Sequence[Subject]) -> Iterator[Annotation]:
        """One annotation per subject, in order."""
        for index, subject in enumerate(subjects):
            yield self._annotate(subject, np.random.default_rng([self.seed, index]))

    def _annotate(self, subject: Subject, generator: np.random.Generator) -> Annotation:
        kept, readings = _distinct([self._read(example) for example in subject.explain])
        weights = _energies(readings)
        phrases = [reading.phrases for reading in readings]
        phrase = common_phrase(phrases, weights, self.settings.min_documents)
        keywords = self._keywords(readings, phrase)
        votes = np.array([reading.vote for reading in readings]).reshape(len(readings), len(self.cues.names))
        habits = np.array([list(HABITS).index(r.habit) if r.habit else -1 for r in readings], dtype=int)
        owners = self.cues.habit_owners(HABITS.values(), phrase)
        winner = int(self._decide(votes[None], weights[None], habits[None], owners)[0])
        if winner < 0 and not keywords and not phrase and not (habits >= 0).any():
            return Annotation(
                subject.key, "uninterpretable", NAME, category=UNINTERPRETABLE, votes={UNINTERPRETABLE: 1.0}
            )
        shares = self._resampled(votes, weights, habits, owners, generator)
        name = self.cues.names[winner] if winner >= 0 else OTHER
        habitual = int(main_habit(habits[None], weights[None])[0])
        top = shares.get(name, 0.0) if habitual >= 0 else _share_of(winner, votes, weights)
        speaks = np.zeros(len(readings), dtype=bool)
        if habitual >= 0:
            speaks = habits == habitual
        elif winner >= 0:
            speaks = votes.any(1) & (votes.argmax(1) == winner)
        return Annotation(
            key=subject.key,
            state="ok",
            annotator=NAME,
            label=_label(phrase, keywords, habitual) or name,
            description=_describe(readings, keywords, phrase, habitual),
            category=name,
            votes=shares,
            confidence=cast(Literal[1, 2, 3, 4, 5], int(np.clip(np.ceil(5 * top), 1, 5))),
            keywords=tuple(keywords),
            evidence=tuple(kept[i] for i in np.flatnonzero(speaks).tolist()),
        )

    def _read(self, example: Example) -> _Reading:
        features = self.features.of(example)
        near = word_weights(features.text, features.ends, nearness(example, decay=self.settings.decay))
        floor = self.settings.floor
        terms = {term: floor + (1 - floor) * weight for term, weight in stems(near).items()}
        terms |= {signal_term(name): 1.0 for name in features.signals}
        return _Reading(
            words=near,
            signals=features.signals,
            vote=self._vote(terms),
            peak=float(example.codes.max(initial=0.0)),
            phrases=features.phrases,
            habit=features.habit,
        )

    def _vote(self, terms: dict[str, float]) -> Votes:
        """A document's evidence as shares over categories; zeros without evidence."""
        evidence = self.cues.evidence(terms, self.stem_rarity) ** 2
        total = evidence.sum()
        return evidence / total if total > 0 else evidence

    def _keywords(self, readings: Sequence[_Reading], phrase: Sequence[str]) -> list[str]:
        """Words in enough documents, by summed weight x rarity; common words only from the peaks' phrase."""
        rarity = self.word_rarity | {
            word: max(self.word_rarity.get(word, 1.0), _AT_PEAK) for word in phrase if word not in STOP_WORDS
        }
        weight: Counter[str] = Counter()
        support: Counter[str] = Counter()
        for reading in readings:
            for word, value in reading.words.items():
                if value > _NEAR:
                    support[word] += 1
                    weight[word] += value  # type: ignore[assignment]
        scored = {
            word: weight[word] * rarity.get(word, 1.0)
            for word, count in support.items()
            if count >= self.settings.min_documents and rarity.get(word, 1.0) > 0
        }
        return sorted(scored, key=lambda word: (-scored[word], word))[: self.settings.n_keywords]

    def _decide(self, votes: Votes, weights: Votes, habits: Places, owners: Places) -> Places:
        """Winning category per stack of votes [stack document category], weights and habits [stack document].

        The category of most peaks' habit, else the one with the largest gain over background; -1: none clear.
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
        usual = (self.expected / max(float(self.expected.sum()), 1e-12))[winner]
        n_effective = weights.sum(1) ** 2 / np.maximum((weights**2).sum(1), 1e-12)
        error = np.sqrt(usual * (1 - usual) / np.maximum(n_effective, 1))
        clear &= (gain.max(-1) > 0) & (share > usual + 2 * error)
        habitual = main_habit(habits, weights)
        return np.where(habitual >= 0, owners[habitual], np.where(clear, winner, -1))

    def _resampled(
        self, votes: Votes, weights: Votes, habits: Places, owners: Places, generator: np.random.Generator
    ) -> dict[str, float]:
        """Share of each answer when the documents are drawn again with replacement."""
        n_documents, n_resamples = len(votes), self.settings.n_resamples
        if n_documents == 0 or n_resamples == 0:
            return {}
        drawn = generator.integers(n_documents, size=(n_resamples, n_documents))
        names = (*self.cues.names, OTHER)
        winners = self._decide(votes[drawn], weights[drawn], habits[drawn], owners)
        counts = Counter(names[winner] for winner in winners.tolist())
        return {name: count / n_resamples for name, count in sorted(counts.items())}


_NEAR = 0.05  # weight below which a word counts as far from the activity
_AT_PEAK = 0.5  # least rarity of a word of the phrase at the peaks
_SAME = 0.9  # share of words (Jaccard) from which two documents are near-identical


def _distinct(readings: Sequence[_Reading]) -> tuple[list[int], list[_Reading]]:
    """Indices and readings without near-identical documents, of which the first counts."""
    kept: list[int] = []
    for index, reading in enumerate(readings):
        words = reading.words.keys()
        if not words or not any(_overlap(words, readings[other].words.keys()) >= _SAME for other in kept):
            kept.append(index)
    return kept, [readings[index] for index in kept]


def _overlap(words: KeysView[str], others: KeysView[str]) -> float:
    small, large = sorted((len(words), len(others)))
    return len(words & others) / len(words | others) if small >= _SAME * large else 0.0


def _label(phrase: Sequence[str], keywords: Sequence[str], habitual: int) -> str:
    """The phrase at the peaks (a mark's habit instead), then keywords outside the phrase."""
    first = " ".join(phrase)
    if habitual >= 0 and list(HABITS)[habitual] == "formatting":
        first = "formatting: line mark"
    elif len(phrase) == 1 and phrase[0] in STOP_WORDS and keywords:
        first = ""
    rest = [word for word in keywords if word not in phrase]
    return ", ".join([*filter(None, [first]), *rest][:3])


def _flat_words(document: Document) -> dict[str, float]:
    text, ends = text_of(document)
    words = word_weights(text, ends, np.ones(len(document.tokens), dtype=np.float32))
    return words | {signal_term(name): 1.0 for name in signals(document, text)}


def _energies(readings: Sequence[_Reading]) -> NDArray[np.float64]:
    """Weight of each document: the square of its peak code over the largest."""
    peaks = np.array([reading.peak for reading in readings])
    largest = float(peaks.max(initial=0.0))
    return (peaks / largest) ** 2 if largest > 0 else np.ones(len(peaks))


def _share_of(winner: int, votes: Votes, weights: NDArray[np.float64]) -> float:
    weighted = weights @ votes
    return float(weighted[winner]) / max(float(weighted.sum()), 1e-12) if winner >= 0 else 0.0


def _describe(
    readings: Sequence[_Reading], keywords: Sequence[str], phrase: Sequence[str], habitual: int
) -> str:
    """Keywords, the phrase and habit at the peaks, and the signals that most documents show."""
    on = Counter(name for reading in readings for name in reading.signals)
    often = [name for name, count in on.most_common() if count > len(readings) / 2]
    words = f"words near the activity: {', '.join(keywords)}" if keywords else "no word in enough documents"
    words += f"; at the peaks: {' '.join(phrase)}" if len(phrase) > 1 else ""
    words += f"; a habit: {list(HABITS)[habitual]}" if habitual >= 0 else ""
    return words + (f"; the text is mostly: {', '.join(often)}" if often else "")
