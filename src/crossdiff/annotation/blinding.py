"""One blind, shuffled job out of the latents of all pairs, with controls whose answer is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crossdiff.annotation.subjects import Example, Subject

SWAPPED = "control_swapped"
"""Role of a control made of one example each of different latents: nothing holds it together."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A latent with its examples and what the annotator must not learn: pair and role."""

    pair: str
    latent: int
    role: str
    explain: tuple[Example, ...]
    score: tuple[Example, ...] = ()


def blind_job(
    candidates: Sequence[Candidate], *, n_swapped: int, seed: int
) -> list[tuple[Subject, Candidate]]:
    """Candidates and swapped controls in random order, under keys that tell nothing.

    The order depends on `seed` and on the candidates themselves, not on the order they come in.
    """
    generator = np.random.default_rng([seed, 6])
    ordered = sorted(candidates, key=lambda candidate: (candidate.pair, candidate.role, candidate.latent))
    job = [*ordered, *_swapped(ordered, n_swapped, generator)]
    shuffled = [job[index] for index in generator.permutation(len(job))]
    return [
        (Subject(f"{number:05d}", candidate.explain, candidate.score), candidate)
        for number, candidate in enumerate(shuffled)
    ]


def _swapped(ordered: Sequence[Candidate], n_swapped: int, generator: np.random.Generator) -> list[Candidate]:
    """Controls that take example i from a different latent each; named after the first donor."""
    donors = [candidate for candidate in ordered if candidate.explain]
    lengths = [len(candidate.explain) for candidate in donors]
    if not donors or len(donors) < max(lengths):
        return []
    controls = []
    for _ in range(min(n_swapped, len(donors))):
        length = int(np.median(lengths))
        chosen = generator.permutation(len(donors))[:length]
        explain = tuple(
            donors[donor].explain[place % len(donors[donor].explain)] for place, donor in enumerate(chosen)
        )
        first = donors[chosen[0]]
        controls.append(Candidate(first.pair, first.latent, SWAPPED, explain))
    return controls
