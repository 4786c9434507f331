"""Which latents of two crosscoders are the same: by decoder direction, and by code on the same tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor
from torch.nn.functional import normalize

from crossdiff.core.codes import SparseCode

CHUNK = 8192


@dataclass(frozen=True)
class Nearest:
    """The most similar latent of the other crosscoder per own latent, and the similarity.

    Without a latent to compare with, -1 and NaN.
    """

    latent: Int[Tensor, " own"]
    similarity: Float[Tensor, " own"]


def nearest_direction(
    own: Float[Tensor, "own width"],
    other: Float[Tensor, "other width"],
    *,
    alive: Bool[Tensor, " other"],
) -> Nearest:
    """The alive latent of the other crosscoder with the highest cosine, in slices of its latents."""
    unit = normalize(own)
    best = Nearest(torch.full((len(own),), -1, dtype=torch.int64), own.new_full((len(own),), -torch.inf))
    for start in range(0, len(other), CHUNK):
        part = slice(start, min(start + CHUNK, len(other)))
        cosine = torch.where(alive[part], unit @ normalize(other[part]).T, -torch.inf)
        value, place = cosine.max(dim=1)
        better = value > best.similarity
        best = Nearest(
            torch.where(better, place + start, best.latent), torch.where(better, value, best.similarity)
        )
    missing = best.similarity.isinf()
    return Nearest(best.latent.masked_fill(missing, -1), best.similarity.masked_fill(missing, torch.nan))


@dataclass(frozen=True)
class Twins:
    """The latent of the other crosscoder that passes both rules per own latent; -1 and NaN without."""

    latent: Int[Tensor, " own"]
    cosine: Float[Tensor, " own"]
    correlation: Float[Tensor, " own"]


def twins_of(
    own: Float[Tensor, "own width"],
    other: Float[Tensor, "other width"],
    correlation: Float64[Tensor, "own other"],
    *,
    alive: Bool[Tensor, " other"],
    min_cosine: float,
    min_correlation: float,
) -> Twins:
    """The alive latents of the other crosscoder that are near in direction and in code at once.

    Of several, the one with the highest correlation of codes. Nearest by direction and nearest by code can be
    two latents; then there is no twin unless one latent passes both.
    """
    best = torch.full((len(own),), -torch.inf, dtype=correlation.dtype)
    latent = torch.full((len(own),), -1, dtype=torch.int64)
    cosine = own.new_full((len(own),), torch.nan)
    unit = normalize(own)
    for start in range(0, len(other), CHUNK):
        part = slice(start, min(start + CHUNK, len(other)))
        near = unit @ normalize(other[part]).T
        passes = alive[part] & (near >= min_cosine) & (correlation[:, part] >= min_correlation)
        value, place = torch.where(passes, correlation[:, part], -torch.inf).max(dim=1)
        better = value > best
        best = torch.where(better, value, best)
        latent = torch.where(better, place + start, latent)
        cosine = torch.where(better, near.gather(1, place[:, None]).squeeze(1), cosine)
    return Twins(latent, cosine, best.masked_fill(latent < 0, torch.nan))


@dataclass
class CodeCorrelation:
    """Running sums for Pearson's correlation of chosen latents with all latents of another crosscoder.

    Codes are of the same tokens; only active entries are read; memory O(chosen x other).
    """

    chosen: Int[Tensor, " own"]
    n_latents: int
    n_other: int
    n_tokens: int = 0
    own: Float64[Tensor, "moment own"] = field(init=False)
    other: Float64[Tensor, "moment other"] = field(init=False)
    product: Float64[Tensor, "own other"] = field(init=False)

    def __post_init__(self) -> None:
        self.own = torch.zeros(2, len(self.chosen), dtype=torch.float64)
        self.other = torch.zeros(2, self.n_other, dtype=torch.float64)
        self.product = torch.zeros(len(self.chosen), self.n_other, dtype=torch.float64)
        self._place = torch.full((self.n_latents,), -1, dtype=torch.int64)
        self._place[self.chosen] = torch.arange(len(self.chosen))

    def add(self, own: SparseCode, other: SparseCode) -> None:
        """Add codes of both crosscoders on the same tokens."""
        if own.n_tokens != other.n_tokens:
            raise ValueError(
                f"codes of {own.n_tokens} and {other.n_tokens} tokens cannot be correlated; "
                "encode the same tokens with both crosscoders"
            )
        self.n_tokens += own.n_tokens
        place = self._place[own.latent]
        kept = place >= 0
        place, token, value = place[kept], own.token[kept], own.value[kept].double()
        _add_moments(self.own, place, value)
        _add_moments(self.other, other.latent, other.value.double())
        counts = torch.bincount(other.token, minlength=other.n_tokens)[token]
        first = torch.repeat_interleave(other.row_starts()[token] - (counts.cumsum(0) - counts), counts)
        met = first + torch.arange(len(first))
        repeated = torch.repeat_interleave(torch.arange(len(token)), counts)
        flat = place[repeated] * self.n_other + other.latent[met]
        self.product.view(-1).index_add_(0, flat, value[repeated] * other.value[met].double())

    def merge(self, other: CodeCorrelation) -> None:
        """Add the sums over other tokens; equal to one pass over both, to rounding."""
        self.n_tokens += other.n_tokens
        for name in ("own", "other", "product"):
            getattr(self, name).add_(getattr(other, name))

    def value(self) -> Float64[Tensor, "own other"]:
        """Correlations; NaN where a latent was constant."""
        n = self.n_tokens
        covariance = self.product - torch.outer(self.own[0], self.other[0]) / n
        spread = [moments[1] - moments[0].square() / n for moments in (self.own, self.other)]
        return covariance / torch.outer(*spread).sqrt()


def nearest_code(correlation: Float64[Tensor, "own other"]) -> Nearest:
    """The latent of the other crosscoder whose code has the highest correlation, per own latent."""
    known = correlation.isfinite()
    value, latent = torch.where(known, correlation, -torch.inf).max(dim=1)
    none = ~known.any(dim=1)
    return Nearest(latent.masked_fill(none, -1), value.masked_fill(none, torch.nan))


def pairwise_mcc(decoder_a: Float[Tensor, "own width"], decoder_b: Float[Tensor, "other width"]) -> float:
    """PW-MCC: mean |cosine| of two dictionaries' latents under the best one-to-one matching.

    A latent's directions for all models are one row: `decoder.flatten(1)`. 1 when every row of the smaller
    dictionary is in the other, up to sign and length; unmatched latents of the larger one do not count. A row
    of zeros has cosine 0; NaN where a dictionary has no latent. Memory is own x other, time about its cube
    (Hungarian matching). Source: Song et al. 2025, arXiv 2505.20254, section 3 (the mean correlation
    coefficient of two decoders).
    """
    from scipy.optimize import linear_sum_assignment

    if not (len(decoder_a) and len(decoder_b)):
        return float("nan")
    first, second = (normalize(decoder.detach().double().cpu()) for decoder in (decoder_a, decoder_b))
    cosine = (first @ second.T).abs().numpy()
    if not isfinite(cosine.sum()):
        raise ValueError("a decoder has values that are not finite, so its latents have no cosine")
    return float(cosine[linear_sum_assignment(cosine, maximize=True)].mean())


def _add_moments(moments: Tensor, place: Tensor, value: Tensor) -> None:
    moments[0].index_add_(0, place, value)
    moments[1].index_add_(0, place, value.square())
