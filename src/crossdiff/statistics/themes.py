"""Themes: the topics of one model's exclusive latents, in a few groups.

Latents with a sure category form one theme per category. Of the others, those that share the most common word
form a theme, then those of the rest that share the next, and so on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from crossdiff.taxonomy.scheme import OTHER, UNINTERPRETABLE

N_WORDS = 5
"""Words displayed for a theme."""
N_SHARED = 4
"""Leading words of a latent by which it can join a theme."""
SURE_VOTES, SURE_CONFIDENCE = 0.5, 3
"""Least share of the votes and least confidence at which a category names a latent."""


@dataclass(frozen=True)
class ThemeLatent:
    """One labelled exclusive latent: `category` is None where it is unsure, `words` are strongest first.

    energy
        Squared norm of the latent's output, summed over the corpus (`latent_energy`); NaN where not known.
    """

    crosscoder: str
    latent: int
    category: str | None
    words: tuple[str, ...]
    energy: float


@dataclass(frozen=True)
class Theme:
    """Latents of one category, or that share a word; the one with the most energy comes first.

    energy_share
        Share of the energy of all latents given to `themes`; NaN where no energy is known.
    """

    category: str | None
    words: tuple[str, ...]
    latents: tuple[ThemeLatent, ...]
    energy_share: float

    @property
    def crosscoders(self) -> int:
        """How many crosscoders have a latent of this theme."""
        return len({latent.crosscoder for latent in self.latents})

    @property
    def best(self) -> ThemeLatent:
        """The theme's example: most of the theme's words, then most energy."""

        def place(latent: ThemeLatent) -> tuple[int, float]:
            return len(set(self.words[:3]) & set(latent.words)), _known(latent.energy)

        return max(self.latents, key=place)


def latent_energy(histogram: Mapping[str, Sequence[float]] | None, norm: float) -> float:
    """Sum over tokens of code^2 |direction|^2, from the histogram of the latent's codes; NaN without one.

    A code counts as the geometric middle of its bin, so code^2 is the product of the bin's two edges; bins
    are half an octave wide, so the square of one code is off by a factor of 1.41 at most.
    """
    if not histogram or not isfinite(norm):
        return float("nan")
    edges, counts = histogram["edges"], histogram["counts"]
    squares = (n * low * high for n, low, high in zip(counts, edges, edges[1:], strict=False))
    return norm**2 * sum(squares)


def sure_category(row: Mapping[str, Any]) -> str | None:
    """The category of an annotation, where votes and confidence support it; else None."""
    category = row.get("category")
    if category in (None, OTHER, UNINTERPRETABLE):
        return None
    votes, confidence = row.get("votes") or {}, row.get("confidence")
    weak = votes and votes.get(category, 0.0) < SURE_VOTES
    return None if weak or (confidence is not None and confidence < SURE_CONFIDENCE) else category


def themes(latents: Iterable[ThemeLatent]) -> list[Theme]:
    """Themes of one model, each latent in one, by falling energy share, then number of latents."""
    given = sorted(latents, key=lambda one: (-_known(one.energy), one.crosscoder, one.latent))
    groups: dict[str | None, list[ThemeLatent]] = {}
    for one in given:
        groups.setdefault(one.category, []).append(one)
    unsure = groups.pop(None, [])
    named: list[tuple[str | None, list[ThemeLatent], str | None]] = [
        (category, group, None) for category, group in groups.items()
    ]
    named += [(None, group, word) for word, group in by_shared_word(unsure)]
    total = sum(_known(one.energy) for one in given)
    found = [
        Theme(category, _words(group, given, first), tuple(group), _share(group, total))
        for category, group, first in named
    ]
    return sorted(found, key=lambda theme: (-_known(theme.energy_share), -len(theme.latents), theme.words))


def by_shared_word(latents: Sequence[ThemeLatent]) -> list[tuple[str | None, list[ThemeLatent]]]:
    """Groups (shared word, latents), the most shared word first; the rest one by one, without a word.

    Ties go to the word with more energy, then to the alphabet.
    """
    left, groups = list(latents), []
    while left:
        shared, energy = Counter[str](), Counter[str]()
        for one in left:
            for word in set(one.words[:N_SHARED]):
                shared[word] += 1
                energy[word] += _known(one.energy)  # type: ignore[assignment]
        word = min(shared, key=lambda w: (-shared[w], -energy[w], w), default=None)
        if word is None or shared[word] < 2:
            return [*groups, *((None, [one]) for one in left)]
        groups.append((word, [one for one in left if word in one.words[:N_SHARED]]))
        left = [one for one in left if word not in one.words[:N_SHARED]]
    return groups


def _words(
    group: Sequence[ThemeLatent], everything: Sequence[ThemeLatent], first: str | None
) -> tuple[str, ...]:
    """Words by weight inside the group less weight outside; a latent's k-th word has weight 1/k."""
    inside, outside = _weights(group), _weights(everything)
    others = max(len(everything) - len(group), 1)
    held = Counter(word for one in group for word in set(one.words))
    least = 2 if len(group) > 2 else 1
    scores = {
        word: weight / len(group) - (outside[word] - weight) / others
        for word, weight in inside.items()
        if held[word] >= least or word == first
    }
    ordered = sorted(scores, key=lambda word: (word != first, -scores[word], word))
    return tuple(ordered[:N_WORDS])


def _weights(latents: Iterable[ThemeLatent]) -> dict[str, float]:
    weights: dict[str, float] = {}
    for one in latents:
        for place, word in enumerate(one.words, start=1):
            weights[word] = weights.get(word, 0.0) + 1 / place
    return weights


def _share(group: Sequence[ThemeLatent], total: float) -> float:
    return sum(_known(one.energy) for one in group) / total if total > 0 else float("nan")


def _known(value: float) -> float:
    return value if isfinite(value) else 0.0
