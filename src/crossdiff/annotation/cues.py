"""Cue words of categories, and the evidence that a document gives for every category."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from crossdiff.annotation.subjects import CategoryLike
from crossdiff.annotation.text_features import WORD, stem

STOP_WORDS = frozenset(
    """
    a about after again against all also an and another any are as at be because been before being between
    both but by can could did do does doing down during each even every few for from further get give given
    had has have having he her here him his how i if in into is it its just keep keeping like make many may
    me more most much my name named naming new no nor not now of off on one only or other our out over own
    same saying she should so some someone something stay such than that the their them then there these
    they thing this those through to too trying two under until up us use user using very was way we were
    what when where whether which while who whom whose why will with without word would you your
    """.split()  # noqa: SIM905
)


class CueIndex:
    """Stem -> (category index, weight): cue words count 1, words of the definition less.

    Categories with the same word share it; stop words of definitions are left out.
    """

    def __init__(self, scheme: Sequence[CategoryLike], *, definition_weight: float) -> None:
        self.names = tuple(category.name for category in scheme)
        weights: dict[str, dict[int, float]] = defaultdict(dict)
        for index, category in enumerate(scheme):
            words = [
                match.group() for match in WORD.finditer(f"{category.title} {category.definition}".lower())
            ]
            for word in words:
                if word not in STOP_WORDS:
                    weights[stem(word)][index] = definition_weight
            for cue in category.cues:
                weights[stem(cue.lower())][index] = 1.0
            for signal in category.signals:
                weights[signal_term(signal)][index] = 1.0
        self.entries = {term: self._shared(owners) for term, owners in weights.items()}

    @staticmethod
    def _shared(owners: Mapping[int, float]) -> tuple[tuple[int, float], ...]:
        """Categories with the largest weight share the word: a cue outranks a definition."""
        best = max(owners.values())
        kept = [index for index, weight in owners.items() if weight == best]
        return tuple((index, best / len(kept)) for index in kept)

    def owner(self, term: str) -> int:
        """Index of the one category with this cue or signal; -1 for none or several."""
        owners = self._of_cue(term)
        return owners[0][0] if len(owners) == 1 else -1

    def habit_owners(self, habits: Iterable[str], phrase: Iterable[str]) -> NDArray[np.int64]:
        """Category of each habit; without one, the category that has most of the phrase's cues.

        A cue of several categories counts in parts; -1 on a tie.
        """
        shares = np.zeros(len(self.names) + 2)
        for word in phrase:
            for index, share in self._of_cue(word):
                shares[index] += share
        second, first = np.sort(shares)[-2:]
        instead = int(shares.argmax()) if first > second + 1e-9 else -1
        return np.array([owner if owner >= 0 else instead for owner in map(self.owner, habits)])

    def _of_cue(self, term: str) -> tuple[tuple[int, float], ...]:
        """(category, share) of this cue or signal; a definition's words are no cues."""
        owners = self.entries.get(term if term.startswith("<") else stem(term), ())
        return owners if sum(share for _, share in owners) > 1 - 1e-9 else ()

    def evidence(self, terms: Mapping[str, float], rarity: Mapping[str, float]) -> NDArray[np.float64]:
        """Sum per category of weight x rarity over the distinct stems of one document."""
        evidence = np.zeros(len(self.names))
        for term, weight in terms.items():
            for index, share in self.entries.get(term, ()):
                evidence[index] += share * weight * rarity.get(term, 1.0)
        return evidence


def signal_term(signal: str) -> str:
    """A signal as a term that no word can equal."""
    return f"<{signal}>"


def stems(words: Mapping[str, float]) -> dict[str, float]:
    """Words -> stems, each with the largest weight of its words."""
    weights: dict[str, float] = {}
    for word, weight in words.items():
        term = stem(word)
        if weight > weights.get(term, -1.0):
            weights[term] = weight
    return weights


def inverse_document_frequency(documents: Iterable[Iterable[str]]) -> dict[str, float]:
    """Term -> log((1 + N) / (1 + n_documents with the term)) / log(1 + N); 1 for unseen terms."""
    counts: Counter[str] = Counter()
    n_documents = 0
    for terms in documents:
        counts.update(set(terms))
        n_documents += 1
    scale = np.log1p(max(n_documents, 1))
    return {term: float(1 - np.log1p(count) / scale) for term, count in counts.items()}
