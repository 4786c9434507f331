"""The labels of one pair's annotated latents: the unit that is counted and resampled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Side:
    """Labels of one pair's annotated latents, one per latent (the majority where there were votes).

    An annotator's doubt is not resampled inside a latent: another latent would have come with votes of its
    own, so that labels drawn anew carry that doubt already. Drawing votes too counts it twice and pulls
    every share towards the mean vote, away from the share that is reported (docs/annotation.md).
    """

    labels: Sequence[str]

    @property
    def total(self) -> int:
        """Annotated latents: the denominator of every share."""
        return len(self.labels)

    def counts(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Latents per name."""
        found = Counter(self.labels)
        return np.array([found[name] for name in names], dtype=np.int64)

    def draw(self, names: Sequence[str], *, draws: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """Bootstrap counts [draw name]: latents with replacement."""
        if not self.labels:
            return np.zeros((draws, len(names)), dtype=np.int64)
        counts = self.counts(names)
        shares = np.append(counts, self.total - counts.sum()) / self.total
        return generator.multinomial(self.total, shares, size=draws)[:, :-1]
