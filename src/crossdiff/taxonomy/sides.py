"""The labels of one pair's annotated latents: the unit that is counted and resampled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Votes = Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Side:
    """Labels of one pair's annotated latents, and per latent the vote shares (empty = no vote spread)."""

    labels: Sequence[str]
    votes: Votes = ()

    @property
    def total(self) -> int:
        """Annotated latents: the denominator of every share."""
        return len(self.labels)

    def counts(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Latents per name."""
        found = Counter(self.labels)
        return np.array([found[name] for name in names], dtype=np.int64)

    def probabilities(self, names: Sequence[str]) -> NDArray[np.float64]:
        """Mean vote share per name, and last that of every other name.

        Drawing a latent and then one of its votes is one draw from this distribution.
        """
        place = {name: index for index, name in enumerate(names)}
        mean = np.zeros(len(names) + 1)
        for index, label in enumerate(self.labels):
            shares = self.votes[index] if self.votes else {}
            for name, share in (shares or {label: 1.0}).items():
                mean[place.get(name, len(names))] += share
        return mean / mean.sum() if mean.sum() > 0 else mean

    def draw(self, names: Sequence[str], *, draws: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """Bootstrap counts [draw name]: latents with replacement, one vote of each."""
        if not self.labels:
            return np.zeros((draws, len(names)), dtype=np.int64)
        return generator.multinomial(self.total, self.probabilities(names), size=draws)[:, :-1]
