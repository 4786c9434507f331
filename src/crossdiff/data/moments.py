"""Mean and variance of activations in float64, per group of rows, mergeable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from crossdiff.data.tokens import TokenKind

N_KINDS = len(TokenKind)
N_GROUPS = 2 * N_KINDS
"""Groups are (training | validation) x token kind, so that a mask by kind needs no second pass."""

CHUNK = 1024
"""Rows in memory in float64 at a time (29 MB at d_model 3584)."""


@dataclass
class Moments:
    """Count, mean and sum of squared deviations per group; `merge` is Chan's formula, exact to rounding."""

    NAMES: ClassVar[tuple[str, ...]] = ("moment_count", "moment_mean", "moment_deviation")
    """Names in `tensors`."""

    count: Float[Tensor, " group"]
    mean: Float[Tensor, "group d_model"]
    deviation: Float[Tensor, "group d_model"]

    @classmethod
    def zeros(cls, d_model: int, *, n_groups: int = N_GROUPS) -> Moments:
        """Moments of no rows."""
        shape = (n_groups, d_model)
        return cls(
            torch.zeros(n_groups, dtype=torch.float64),
            torch.zeros(shape, dtype=torch.float64),
            torch.zeros(shape, dtype=torch.float64),
        )

    @classmethod
    def of(cls, x: Float[Tensor, "token d_model"], group: Int[Tensor, " token"]) -> Moments:
        """Moments of rows `x` by group; two passes per chunk avoid cancellation."""
        total = cls.zeros(x.shape[1])
        for rows, groups in zip(x.split(CHUNK), group.split(CHUNK), strict=True):
            total = total.merge(_chunk_moments(rows.double(), groups))
        return total

    def merge(self, other: Moments) -> Moments:
        """Moments of both sets of rows together."""
        count = self.count + other.count
        share = (other.count / count.clamp(min=1))[:, None]
        shift = other.mean - self.mean
        mean = self.mean + shift * share
        deviation = self.deviation + other.deviation + shift.square() * share * self.count[:, None]
        return Moments(count, mean, deviation)

    def pooled(self, groups: Bool[Tensor, " group"]) -> Moments:
        """One group with the rows of all chosen `groups`."""
        total = Moments.zeros(self.mean.shape[1], n_groups=1)
        for index in groups.nonzero().flatten().tolist():
            one = slice(index, index + 1)
            total = total.merge(Moments(self.count[one], self.mean[one], self.deviation[one]))
        return total

    def variance(self) -> Float[Tensor, "group d_model"]:
        """Population variance (divided by the count); NaN for a group without rows."""
        return self.deviation / self.count[:, None].where(self.count[:, None] > 0, torch.nan)

    def tensors(self) -> dict[str, Tensor]:
        """The state, as named tensors for a shard file."""
        return dict(zip(self.NAMES, (self.count, self.mean, self.deviation), strict=True))

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Moments:
        """Inverse of `tensors`."""
        return cls(*(tensors[name] for name in cls.NAMES))


def row_groups(kind: Int[Tensor, " token"], validation: Bool[Tensor, " token"]) -> Int[Tensor, " token"]:
    """Group of every row: token kind, plus `N_KINDS` for rows of held-out documents."""
    return kind.long() + N_KINDS * validation.long()


def _chunk_moments(x: Float[Tensor, "token d_model"], group: Int[Tensor, " token"]) -> Moments:
    moments = Moments.zeros(x.shape[1])
    for index in group.unique().tolist():
        rows = x[group == index]
        moments.count[index] = len(rows)
        moments.mean[index] = rows.mean(0)
        moments.deviation[index] = rows.sub_(moments.mean[index]).square_().sum(0)
    return moments
