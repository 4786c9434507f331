"""What a backend must offer to the sparse step, and what the two share: types, timing, memory."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from crossdiff.core.codes import ActiveIndices, ActiveValues, SparseCode

_collected: ContextVar[dict[str, float] | None] = ContextVar("parts", default=None)


@contextmanager
def part(name: str) -> Iterator[None]:
    """Time the block under `name`, where somebody collects."""
    seconds = _collected.get()
    start = time.perf_counter()
    yield
    if seconds is not None:
        wait()
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start


def wait() -> None:
    """Until a GPU, where there is one, has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@contextmanager
def collect() -> Iterator[dict[str, float]]:
    """Collect the parts of all steps in the block."""
    seconds: dict[str, float] = {}
    token = _collected.set(seconds)
    yield seconds
    _collected.reset(token)


class Scratch:
    """Uninitialised matrices by name; taking a name again gives the same memory again.

    The pages of a fresh matrix cost as much as the arithmetic on it.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[str, torch.dtype, str], Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """A contiguous matrix with the type and device of `like`."""
        size, key = math.prod(shape), (name, like.dtype, str(like.device))
        held = self._held.get(key)
        if held is None or held.numel() < size:
            self._held[key] = held = like.new_empty(size)
        return held[:size].view(shape)


Rows = Float[Tensor, "token width"]
"""Activations of all models side by side; `width = model * d_model`."""


class KernelsMissing(RuntimeError):
    """A backend that this machine cannot offer, and why."""


@dataclass(frozen=True)
class ByLatent:
    """A sparse code grouped by latent: group r is `latent[r]` on the tokens `token[start[r]:start[r + 1]]`.

    `order` takes values in (token, latent) order to this one.
    """

    latent: Int[Tensor, " row"]
    start: Int[Tensor, " row_plus_1"]
    token: ActiveIndices
    order: ActiveIndices

    @classmethod
    def of(cls, code: SparseCode, *, latents: Int[Tensor, " row"] | None = None) -> ByLatent:
        """Group by the ascending `latents`, which hold every active one; by default only the active ones."""
        narrow = torch.int16 if code.n_latents <= 2**15 else torch.int32  # sorts faster than int64
        order = torch.argsort(code.latent.to(narrow), stable=True)
        counts = torch.bincount(code.latent, minlength=code.n_latents)
        rows = counts.nonzero().squeeze(1) if latents is None else latents
        return cls(rows, starts(counts[rows]), code.token[order], order)


@dataclass(frozen=True)
class RowGradients:
    """Gradients of the rows `latent` of the encoder, its bias and the decoder; all other rows are 0."""

    latent: Int[Tensor, " row"]
    encoder: Float[Tensor, "row width"]
    encoder_bias: Float[Tensor, " row"]
    decoder: Float[Tensor, "row width"]


@dataclass(frozen=True)
class Backward:
    """What a backward pass knows of the batch: activations, and the loss gradient at the reconstruction."""

    x: Rows
    gradient: Rows


@runtime_checkable
class Kernels(Protocol):
    """The operations whose cost is the sparse part of a step."""

    name: str
    dense_density: float
    """Share of kept entries above which dense products over chunks of latents are faster."""

    def above(
        self, product: Float[Tensor, "token chunk"], cut: Float[Tensor, " chunk"]
    ) -> tuple[ActiveIndices, ActiveIndices, ActiveValues]:
        """Rows, columns and float32 (or float64) values of the entries with `product > cut`, row-major."""
        ...

    def largest_per_token(
        self, pre: Float[Tensor, "token dead"], norm: Float[Tensor, " dead"], k: int
    ) -> tuple[ActiveIndices, ActiveIndices, ActiveValues]:
        """Rows, columns and values of the k largest positive `pre * norm` of every row, row-major."""
        ...

    def scores(self, x: Rows, encoder: Float[Tensor, "latent width"], code: SparseCode) -> ActiveValues:
        """`<x_t, encoder_j>` of every listed entry (t, j), in the precision of `x`."""
        ...

    def decode(self, code: SparseCode, groups: ByLatent, decoder: Float[Tensor, "latent width"]) -> Rows:
        """`sum_j f_tj decoder_j`, without bias."""
        ...

    def backward(
        self,
        code: SparseCode,
        groups: ByLatent,
        batch: Backward,
        decoder: Float[Tensor, "latent width"],
        *,
        scratch: Scratch,
    ) -> RowGradients:
        """Gradients of the rows of `groups`; their memory may be taken from `scratch`.

        `decoder_j += f_tj g_t`, `df_tj = <g_t, decoder_j>`, `encoder_j += df_tj x_t`, `bias_j += df_tj`.
        """
        ...


class AdamFactors(NamedTuple):
    """`m = beta1 m + (1 - beta1) clip g`, `v` alike, `w -= rate m / (sqrt(v) / root_correction + eps)`."""

    clip: float
    beta1: float
    beta2: float
    rate: float
    root_correction: float
    eps: float


@runtime_checkable
class FusedAdam(Protocol):
    """Kernels with an Adam of their own, which reads gradients of a few rows as they are."""

    def adam(
        self,
        tensors: tuple[Tensor, Tensor, Tensor],
        rows: Int[Tensor, " row"],
        values: Float[Tensor, "row *rest"],
        factors: AdamFactors,
        *,
        skip: bool,
    ) -> None:
        """Adam on (parameter, first, second moment) in place; `rows` have gradients, the others 0 or none."""
        ...


def starts(counts: Int[Tensor, " group"]) -> Int[Tensor, " group_plus_1"]:
    """Offsets of consecutive groups of the given sizes, the total last."""
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])
