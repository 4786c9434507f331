"""Concepts over several crosscoders of one pair: twins by decoder direction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from crossdiff.core.matching import nearest_direction, pairwise_mcc

Matches = Sequence[Sequence[Sequence[tuple[int, float] | None]]]
"""[member][other member][latent]: place and cosine of the nearest latent there; empty for itself."""
MIN_COSINE = 0.7
"""Least cosine of twins, that of stage match (codes are not compared)."""


@dataclass(frozen=True)
class Recurrence:
    """One latent's `twins` as (member, place, cosine), and the number of its `concept` over all members.

    recurs
        Whether at least half of the other members have a mutual twin of it.
    """

    twins: tuple[tuple[int, int, float], ...]
    concept: int
    recurs: bool


def recurrence(
    members: Sequence[Float[Tensor, "_ width"]], *, min_cosine: float = MIN_COSINE
) -> list[list[Recurrence]]:
    """Twins in other members and concept of every member's latents.

    `members` are the directions of each crosscoder's latents. A twin is the nearest latent of another member,
    at `min_cosine` or above. A concept is a set of latents connected by mutual twins, so it can have two
    latents of one member.
    """
    matches = [
        [_nearest(member, other, min_cosine) if i != j else [] for j, other in enumerate(members)]
        for i, member in enumerate(members)
    ]
    concept = _concepts([len(member) for member in members], matches)
    least = (len(members) - 1) / 2
    recurrences: list[list[Recurrence]] = []
    for i, member in enumerate(members):
        recurrences.append([])
        for place in range(len(member)):
            twins = tuple(
                (j, *twin) for j, nearest in enumerate(matches[i]) if nearest and (twin := nearest[place])
            )
            mutual = len(_mutual(matches, i, place))
            recurrences[i].append(Recurrence(twins, concept[i, place], mutual > 0 and mutual >= least))
    return recurrences


def mean_mcc(members: Sequence[Float[Tensor, "_ width"]]) -> float:
    """Mean PW-MCC (`pairwise_mcc`) over pairs of members; NaN where no two have latents."""
    known = [pairwise_mcc(a, b) for a, b in combinations(members, 2) if len(a) and len(b)]
    return sum(known) / len(known) if known else float("nan")


def _nearest(own: Tensor, other: Tensor, min_cosine: float) -> list[tuple[int, float] | None]:
    near = nearest_direction(normalize(own), other, alive=torch.ones(len(other), dtype=torch.bool))
    return [
        (place, cosine) if cosine >= min_cosine else None  # NaN (no other latent) is no twin
        for place, cosine in zip(near.latent.tolist(), near.similarity.tolist(), strict=True)
    ]


def _mutual(matches: Matches, i: int, place: int) -> list[tuple[int, int]]:
    """(member, place) of the mutual twins of a latent."""
    twins = [(j, nearest[place]) for j, nearest in enumerate(matches[i]) if nearest]
    backs = [(j, twin[0], matches[j][i][twin[0]]) for j, twin in twins if twin]
    return [(j, there) for j, there, back in backs if back and back[0] == place]


def _concepts(sizes: Sequence[int], matches: Matches) -> dict[tuple[int, int], int]:
    """(member, place) -> number of its concept, a component of mutual twins."""
    root = {(i, place): (i, place) for i, size in enumerate(sizes) for place in range(size)}

    def top(one: tuple[int, int]) -> tuple[int, int]:
        while root[one] != one:
            one = root[one]
        return one

    for i, place in list(root):
        for twin in _mutual(matches, i, place):
            low, high = sorted((top((i, place)), top(twin)))
            root[high] = low
    numbers = {one: number for number, one in enumerate(one for one in root if root[one] == one)}
    return {one: numbers[top(one)] for one in root}
