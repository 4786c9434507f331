"""Which latents of two crosscoders are the same: by decoder direction, and by code on the same tokens."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

CHUNK = 8192


@dataclass(frozen=True)
class Candidates:
    """Per latent the `n` most similar latents of the other crosscoder, best first."""

    latent: Int[Tensor, "own candidate"]
    cosine: Float[Tensor, "own candidate"]


def nearest(
    own: Float[Tensor, "own width"],
    other: Float[Tensor, "other width"],
    *,
    n: int,
    alive: Bool[Tensor, " other"],
) -> Candidates:
    """The `n` alive latents of the other crosscoder with the highest cosine, in slices of its latents."""
    unit, best = _unit(own), None
    for start in range(0, len(other), CHUNK):
        part = slice(start, min(start + CHUNK, len(other)))
        cosine = unit @ _unit(other[part]).T
        cosine = torch.where(alive[part], cosine, -torch.inf)
        latent = torch.arange(part.start, part.stop, device=own.device).expand_as(cosine)
        if best is not None:
            cosine, latent = torch.cat([best.cosine, cosine], dim=1), torch.cat([best.latent, latent], dim=1)
        order = cosine.sort(dim=1, descending=True, stable=True).indices[:, :n]
        best = Candidates(latent.gather(1, order), cosine.gather(1, order))
    return best or Candidates(torch.empty(len(own), 0, dtype=torch.int64), own.new_empty(len(own), 0))


@dataclass
class CodeCorrelation:
    """Running sums for Pearson's correlation between chosen latents of two crosscoders on the same tokens.

    Row i of `own` is compared with column c of its candidates; memory O(own x candidates).
    """

    n_own: int
    n_candidates: int
    n_tokens: int = 0
    own: Float64[Tensor, "moment own"] = field(init=False)
    other: Float64[Tensor, "moment own candidate"] = field(init=False)
    product: Float64[Tensor, "own candidate"] = field(init=False)

    def __post_init__(self) -> None:
        shape = (self.n_own, self.n_candidates)
        self.own = torch.zeros(2, self.n_own, dtype=torch.float64)
        self.other = torch.zeros(2, *shape, dtype=torch.float64)
        self.product = torch.zeros(shape, dtype=torch.float64)

    def add(self, own: Float[Tensor, "token own"], other: Float[Tensor, "token own candidate"]) -> None:
        """Codes of the same tokens: own latents, and for each of them its candidates."""
        own, other = own.double(), other.double()
        self.n_tokens += len(own)
        self.own += torch.stack([own.sum(0), own.square().sum(0)])
        self.other += torch.stack([other.sum(0), other.square().sum(0)])
        self.product += torch.einsum("to,toc->oc", own, other)

    def merge(self, more: CodeCorrelation) -> None:
        """Add the sums over other tokens."""
        self.n_tokens += more.n_tokens
        self.own += more.own
        self.other += more.other
        self.product += more.product

    def value(self) -> Float64[Tensor, "own candidate"]:
        """Correlations; NaN where a latent was constant."""
        n = self.n_tokens
        covariance = self.product - self.own[0][:, None] * self.other[0] / n
        spread_own = (self.own[1] - self.own[0].square() / n)[:, None]
        spread_other = self.other[1] - self.other[0].square() / n
        return covariance / (spread_own * spread_other).sqrt()


def _unit(directions: Tensor) -> Tensor:
    return directions / directions.norm(dim=1, keepdim=True).clamp(min=1e-12)
