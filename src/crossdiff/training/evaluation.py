"""Held-out tokens and a crosscoder's figures on them: explained variance per model, L0, dead share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from crossdiff.core.axes import Activations
from crossdiff.core.codes import SparseCode
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.decoder_norms import decoder_norms
from crossdiff.core.exclusive_call import KINDS, kinds
from crossdiff.core.threshold import smallest_kept
from crossdiff.training.source import ActivationSource, check_finite


@dataclass
class ExplainedVariance:
    """Float64 sums for FVE = 1 - sum |x - x_hat|^2 / sum |x - mean|^2 per model, raw units (method.md 2).

    Sums of x are taken about `origin`, so that their cancellation is harmless.
    """

    origin: Tensor
    error: Tensor = field(init=False)
    first: Tensor = field(init=False)
    second: Tensor = field(init=False)
    n_tokens: int = 0

    def __post_init__(self) -> None:
        self.origin = self.origin.double()
        self.first = torch.zeros_like(self.origin)
        self.error = self.origin.new_zeros(self.origin.shape[0])
        self.second = torch.zeros_like(self.error)

    def add(self, x: Activations, x_hat: Activations) -> None:
        """Take in one batch."""
        shifted = x.double() - self.origin
        self.error += (x - x_hat).double().square().sum(dim=(0, 2))
        self.first += shifted.sum(dim=0)
        self.second += shifted.square().sum(dim=(0, 2))
        self.n_tokens += x.shape[0]

    def value(self) -> list[float]:
        """FVE per model; NaN where the tokens do not vary."""
        variance = self.second - self.first.square().sum(dim=1) / max(1, self.n_tokens)
        return torch.where(variance > 0, 1 - self.error / variance, math.nan).tolist()


@dataclass(frozen=True)
class HeldOut:
    """Figures over held-out unmasked tokens.

    fve, l0: with the inference threshold. fve_batch, l0_batch: with batch top-k, NaN for methods without k.
    never_fired: share of latents with no code above the threshold on these tokens.
    """

    fve: list[float]
    l0: float
    fve_batch: list[float]
    l0_batch: float
    never_fired: float
    n_tokens: int


@torch.no_grad()
def evaluate(
    crosscoder: Crosscoder, batches: Iterable[Activations], *, threshold: float, k: int | None
) -> HeldOut:
    """One pass over raw activations; without a threshold (NaN) its figures are NaN."""
    by_threshold, by_batch = (ExplainedVariance(crosscoder.normaliser.mean) for _ in range(2))
    fired = torch.zeros(crosscoder.n_latents, dtype=torch.bool, device=crosscoder.encoder.device)
    n_active, n_active_batch = 0, 0
    known = not math.isnan(threshold)
    for x in batches:
        if known:
            code = _score(crosscoder, x, threshold, by_threshold)
            fired[code.latent] = True
            n_active += len(code)
        if k is not None:
            smallest = smallest_kept(crosscoder, x, k=k)
            just_below = (
                0.0 if math.isnan(smallest) else (1 - 1e-6) * smallest
            )  # no positive code: none is kept
            n_active_batch += len(_score(crosscoder, x, just_below, by_batch))
    n_tokens = max(by_threshold.n_tokens, by_batch.n_tokens)
    return HeldOut(
        fve=by_threshold.value(),
        l0=n_active / n_tokens if known and n_tokens else math.nan,
        fve_batch=by_batch.value(),
        l0_batch=n_active_batch / n_tokens if k is not None and n_tokens else math.nan,
        never_fired=1 - float(fired.double().mean()) if known else math.nan,
        n_tokens=n_tokens,
    )


def kind_shares(crosscoder: Crosscoder) -> dict[str, float]:
    """Share of all latents per kind of decoder norm (method.md section 3), for pairs; dead ones included."""
    if crosscoder.n_models != 2:
        return {}
    alive = torch.ones(crosscoder.n_latents, dtype=torch.bool)
    found = kinds(decoder_norms(crosscoder).delta_norm, alive=alive)
    return {f"share_{kind}": found.count(kind) / len(found) for kind in KINDS if kind != "dead"}


def delta_norm_histogram(crosscoder: Crosscoder, *, n_bins: int = 20) -> list[int] | None:
    """Counts of `delta_norm` over equal bins from 0 to 1, all latents of a pair; None without a pair."""
    if crosscoder.n_models != 2:
        return None
    return decoder_norms(crosscoder).delta_norm.cpu().histc(n_bins, 0, 1).long().tolist()


def _score(crosscoder: Crosscoder, x: Activations, threshold: float, sums: ExplainedVariance) -> SparseCode:
    code = crosscoder.encode_sparse(x, threshold=threshold)
    sums.add(crosscoder.inputs(x), crosscoder.decode(code))
    return code


_SAMPLE = 0x5A3B1E
"""Sets the sample's random stream apart from others that begin from the run's seed."""


class HeldOutSample:
    """The held-out rows that every validation of one run looks at, a pure function of rows and seed.

    The first pass reads them, with nothing but their documents around them; they then stay in this process's
    memory in the number format of the harvest (`n_tokens` x models x d_model values).
    """

    def __init__(self, source: ActivationSource, *, n_tokens: int, batch_size: int, seed: int) -> None:
        self.source, self.n_tokens, self.batch_size, self.seed = source, n_tokens, batch_size, seed
        self._kept: list[Tensor] | None = None

    def batches(self, device: torch.device) -> Iterator[Activations]:
        """Raw activations in corpus order; a first pass that is broken off is made again."""
        if self._kept is not None:
            for stored in self._kept:
                yield stored.to(device, non_blocking=True).float()
            return
        rows = sampled_rows(self.source, n_tokens=self.n_tokens, seed=self.seed)
        read = []
        for batch in self.source.batches_of(rows, batch_size=self.batch_size):
            check_finite(batch, self.source)
            read.append(batch.stored.cpu())
            yield batch.activations_on(device).x
        self._kept = read


def sampled_rows(source: ActivationSource, *, n_tokens: int, seed: int) -> Int[Tensor, " row"]:
    """`n_tokens` held-out rows: documents drawn whole, the last one cut; all rows where there are no more."""
    rows = source.rows("validation")
    if len(rows) <= n_tokens:
        return rows
    counts = source.document_of(rows).unique_consecutive(return_counts=True)[1].numpy()
    order = np.random.default_rng((_SAMPLE, seed % 2**63)).permutation(len(counts))
    ends = counts[order].cumsum()
    n_documents = int(np.searchsorted(ends, n_tokens)) + 1
    lengths = counts[order[:n_documents]]
    lengths[-1] -= ends[n_documents - 1] - n_tokens
    starts = (counts.cumsum() - counts)[order[:n_documents]]
    places = np.concatenate([np.arange(a, a + n) for a, n in zip(starts, lengths, strict=True)])
    return rows[torch.from_numpy(np.sort(places))]


def held_out_batches(
    source: ActivationSource, *, batch_size: int, device: torch.device
) -> Iterator[Activations]:
    """Raw activations of all held-out rows, in corpus order."""
    for batch in source.batches(split="validation", batch_size=batch_size):
        check_finite(batch, source)
        yield batch.activations_on(device).x
