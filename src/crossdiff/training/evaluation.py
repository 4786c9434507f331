"""Held-out tokens and a crosscoder's figures on them: explained variance per model, L0, dead share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from crossdiff.core.codes import SparseCode
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.decoder_norms import decoder_norms
from crossdiff.core.exclusive_call import KINDS, kinds
from crossdiff.core.explained_variance import FitSums
from crossdiff.core.shard import mean_over_shards, n_latents_of_all, sum_over_shards
from crossdiff.core.threshold import smallest_kept
from crossdiff.data.paired_batch import PairedBatch
from crossdiff.training.source import ActivationSource, check_finite


@dataclass(frozen=True)
class HeldOut:
    """Figures over held-out unmasked tokens.

    fve, l0: with the inference threshold. fve_batch, l0_batch: with batch top-k, NaN for methods without k.
    fve_without_first: `fve` over all tokens but the first of every document, where attention sinks lie.
    never_fired: share of latents with no code above the threshold on these tokens.
    """

    fve: list[float]
    fve_without_first: list[float]
    l0: float
    fve_batch: list[float]
    l0_batch: float
    never_fired: float
    n_tokens: int


@torch.no_grad()
def evaluate(
    crosscoder: Crosscoder, batches: Iterable[PairedBatch], *, threshold: float, k: int | None
) -> HeldOut:
    """One pass over batches in corpus order; without a threshold (NaN) its figures are NaN.

    Of a block of latents (`core.shard`) the figures are those of all blocks; all their ranks make the pass.
    """
    nothing = crosscoder.decoder_bias.detach()[None]
    by_threshold, by_batch = FitSums.zeros(nothing), FitSums.zeros(nothing)
    fired = torch.zeros(crosscoder.n_latents, dtype=torch.bool, device=crosscoder.encoder.device)
    n_tokens, known = 0, not math.isnan(threshold)
    for batch in batches:
        n_tokens += len(batch.stored)
        if known:
            fired[_score(crosscoder, batch, threshold, by_threshold).latent] = True
        if k is not None:
            smallest = smallest_kept(crosscoder, batch.x, k=k)
            just_below = 0.0 if math.isnan(smallest) else (1 - 1e-6) * smallest  # NaN: no positive code
            _score(crosscoder, batch, just_below, by_batch)
    share_fired = mean_over_shards(crosscoder, [float(fired.double().mean())])[0]
    return HeldOut(
        fve=by_threshold.explained(),
        fve_without_first=by_threshold.explained_without_first(),
        l0=by_threshold.l0(),
        fve_batch=by_batch.explained(),
        l0_batch=by_batch.l0(),
        never_fired=1 - share_fired if known else math.nan,
        n_tokens=n_tokens,
    )


def held_out_figures(crosscoder: Crosscoder, measured: HeldOut, *, k: int | None) -> dict[str, Any]:
    """What `training.json` says of a crosscoder that was trained or read; a missing figure is None."""
    names = model_names(crosscoder)
    figures = {
        **{f"fve_{name}": value for name, value in zip(names, measured.fve, strict=True)},
        **{
            f"fve_without_first_{name}": value
            for name, value in zip(names, measured.fve_without_first, strict=True)
        },
        "l0": measured.l0,
        "l0_threshold": measured.l0,
        **kind_shares(crosscoder),
        "delta_norm_histogram": delta_norm_histogram(crosscoder),
        "never_fired_held_out": measured.never_fired,
        "n_held_out_tokens": measured.n_tokens,
        "k": k,
        "n_latents": n_latents_of_all(crosscoder),
        "threshold": float(crosscoder.threshold),
    }
    return without_nan(figures)


def without_nan(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The figures with None for NaN and infinity, which JSON cannot hold."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in figures.items()
    }


def _score(crosscoder: Crosscoder, batch: PairedBatch, threshold: float, sums: FitSums) -> SparseCode:
    xn = crosscoder.normaliser.normalise(crosscoder.inputs(batch.x))
    code = crosscoder.encode_sparse(batch.x, threshold=threshold)
    n_active = sum_over_shards(crosscoder, [len(code)])[0]
    sums.add(xn, crosscoder.decode_normalised(code), n_active=n_active, document=batch.document)
    return code


def kind_shares(crosscoder: Crosscoder) -> dict[str, float]:
    """Share of all latents per kind of decoder norm (method.md section 3), for pairs; dead ones included."""
    if crosscoder.n_models != 2:
        return {}
    alive = torch.ones(crosscoder.n_latents, dtype=torch.bool)
    all_kinds = kinds(decoder_norms(crosscoder).delta_norm, alive=alive)
    named = [kind for kind in KINDS if kind != "dead"]
    shares = mean_over_shards(crosscoder, [all_kinds.count(kind) / len(all_kinds) for kind in named])
    return {f"share_{kind}": share for kind, share in zip(named, shares, strict=True)}


def delta_norm_histogram(crosscoder: Crosscoder, *, n_bins: int = 20) -> list[int] | None:
    """Counts of `delta_norm` over equal bins from 0 to 1, all latents of a pair; None without a pair."""
    if crosscoder.n_models != 2:
        return None
    counts = decoder_norms(crosscoder).delta_norm.cpu().histc(n_bins, 0, 1).long().tolist()
    return sum_over_shards(crosscoder, counts)


_SAMPLE = 0x5A3B1E
"""Sets the sample's random stream apart from others that begin from the run's seed."""


class HeldOutSample:
    """The held-out rows that every validation of one run looks at, a pure function of rows and seed.

    The first pass reads them, with nothing but their documents around them; they then stay in this process's
    memory in the number format of the harvest (`n_tokens` x models x d_model values).
    """

    def __init__(self, source: ActivationSource, *, n_tokens: int, batch_size: int, seed: int) -> None:
        self.source, self.n_tokens, self.batch_size, self.seed = source, n_tokens, batch_size, seed
        self._kept: list[PairedBatch] | None = None

    def batches(self, device: torch.device) -> Iterator[PairedBatch]:
        """Batches in corpus order; a first pass that is broken off is made again."""
        if self._kept is not None:
            yield from (batch.activations_on(device) for batch in self._kept)
            return
        rows = sampled_rows(self.source, n_tokens=self.n_tokens, seed=self.seed)
        read = []
        for batch in self.source.batches_of(rows, batch_size=self.batch_size):
            check_finite(batch, self.source)
            read.append(batch.activations_on("cpu"))
            yield batch.activations_on(device)
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
    source: ActivationSource, *, batch_size: int, device: torch.device, at_most: int | None = None
) -> Iterator[PairedBatch]:
    """All held-out rows, or `at_most` of them in whole documents (`sampled_rows`), in corpus order."""
    batches = source.batches(split="validation", batch_size=batch_size)
    if at_most is not None:
        batches = source.batches_of(sampled_rows(source, n_tokens=at_most, seed=0), batch_size=batch_size)
    for batch in batches:
        check_finite(batch, source)
        yield batch.activations_on(device)


def model_names(crosscoder: Crosscoder) -> list[str]:
    """base and tuned for a pair, difference for diff_sae, base, tuned_1, tuned_2, ... for more models."""
    if crosscoder.settings.architecture == "diff_sae":
        return ["difference"]
    if crosscoder.n_models == 2:
        return ["base", "tuned"]
    return ["base", *(f"tuned_{m}" for m in range(1, crosscoder.n_models))]
