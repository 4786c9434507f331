"""The batch's k*B largest scaled codes, selected without storing or sorting the [token, latent] matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from crossdiff.core.codes import ActiveValues, PerLatent, SparseCode
from crossdiff.core.sparse.kernels import Kernels, Rows, Scratch, part
from crossdiff.core.threshold import largest_of

MARGIN = 0.07
"""Candidates are looked for above (1 - MARGIN) times the last batch's threshold."""
RETRY = 0.7
"""Factor on a guess that was too high."""
RESCORING_DENSITY = 0.04
"""Above this share of kept entries, re-scoring the candidates costs more than a full-precision product."""
POOL_FACTOR = 4
"""Candidates are cut back to those that can still win when there are this many times the wanted number."""


@dataclass(frozen=True)
class Encoder:
    """`pre = x W^T + bias`; latents are ranked by `relu(pre) * norm`, norm held constant."""

    weight: Float[Tensor, "latent width"]
    bias: PerLatent
    norm: PerLatent


@dataclass(frozen=True)
class Selection:
    """The kept codes, the smallest kept scaled code (NaN if none) and where to look in the next batch."""

    code: SparseCode
    threshold: float
    next_cut: float


@dataclass(frozen=True)
class Search:
    """How candidates are found: `dtype` of the encoder product, latents per chunk, backend, memory."""

    dtype: torch.dtype
    chunk: int
    kernels: Kernels
    scratch: Scratch = field(default_factory=Scratch)


def select(x: Rows, encoder: Encoder, *, count: int, cut: float, search: Search) -> Selection:
    """Keep the `count` largest positive scaled codes of the batch; of equals the lowest flat index.

    `cut` is a guess below the threshold (0 for none). A guess that lets too few entries pass, or that lies
    closer to the threshold than the rounding of a narrow encoder product, is lowered once; the last resort is
    a full-precision product without a guess. With a narrow product the result depends on the guess only
    through entries whose rounding error exceeds the largest one seen among all candidates.
    """
    density = count / (x.shape[0] * encoder.norm.shape[0])
    for guess in (cut, RETRY * cut):
        if guess > 0:
            exact = search if density <= RESCORING_DENSITY else replace(search, dtype=x.dtype)
            selection = _attempt(x, encoder, count=count, cut=guess, search=exact)
            if selection is not None:
                return selection
    selection = _attempt(x, encoder, count=count, cut=0.0, search=replace(search, dtype=x.dtype))
    assert selection is not None
    return selection


def _attempt(x: Rows, encoder: Encoder, *, count: int, cut: float, search: Search) -> Selection | None:
    """The selection, or None when the cut may have hidden entries that belong to it."""
    code, reached = _candidates(x, encoder, count=count, cut=cut, search=search)
    error = 0.0  # the largest change of a scaled code by re-scoring: what rounding may have done unseen
    if search.dtype != x.dtype and len(code):
        with part("re-scoring"):
            exact = search.kernels.scores(x, encoder.weight, code) + encoder.bias[code.latent]
        error = float(((exact - code.value).abs() * encoder.norm[code.latent]).max())
        code = replace(code, value=exact)
    with part("top k"):
        kept, threshold = _largest(code, encoder.norm, count)
    if len(kept) < count:
        return None if cut > 0 else Selection(kept, threshold, next_cut=0.0)
    if threshold - reached < error:  # an entry just under the cut may in truth lie above the threshold
        return None
    return Selection(kept, threshold, next_cut=max(0.0, min((1 - MARGIN) * threshold, threshold - 2 * error)))


def _candidates(
    x: Rows, encoder: Encoder, *, count: int, cut: float, search: Search
) -> tuple[SparseCode, float]:
    """All entries whose scaled code, in the product's precision, exceeds a cut; and that cut.

    The cut starts at `cut` and rises when the pool overflows, to under the count-th largest found so far.
    """
    n_tokens, n_latents = x.shape[0], encoder.norm.shape[0]
    rows = x.to(search.dtype)
    pool: list[SparseCode] = []
    for first in range(0, n_latents, search.chunk):
        chunk = slice(first, min(first + search.chunk, n_latents))
        product = search.scratch.take("product", (n_tokens, chunk.stop - first), rows)
        with part("encoder product"):
            torch.mm(rows, encoder.weight[chunk].to(search.dtype).T, out=product)
        with part("candidates"):
            # relu(product + bias) * norm > cut, solved for the product: one comparison per entry, no scaling.
            bound = _rounded_down(cut / encoder.norm[chunk] - encoder.bias[chunk], search.dtype)
            token, latent, value = search.kernels.above(product, bound)
        latent = latent + first
        pool.append(SparseCode(token, latent, value + encoder.bias[latent], n_tokens, n_latents))
        if sum(map(len, pool)) > POOL_FACTOR * count:
            # The count-th largest of some latents is at most that of all, so a cut under it hides no winner;
            # the margin is for the narrow product, whose values re-scoring will move.
            merged = _merge(pool)
            scaled = _scaled(merged, encoder.norm)
            cut = max(cut, (1 - MARGIN) * float(scaled.topk(count, sorted=False).values.min()))
            pool = [_filter(merged, scaled > cut)]
    with part("top k"):
        return _sorted(_merge(pool)), cut


def _largest(code: SparseCode, norm: PerLatent, count: int) -> tuple[SparseCode, float]:
    """The `count` largest positive entries by scaled code, and the smallest scaled code among them."""
    scaled = _scaled(code, norm)
    n_positive = int((scaled > 0).sum())
    keep = largest_of(scaled, count) if n_positive > count else scaled > 0
    return _filter(code, keep), float(scaled[keep].min()) if n_positive else math.nan


def _rounded_down(bound: PerLatent, dtype: torch.dtype) -> PerLatent:
    """The bound in a narrower type, never larger than it was."""
    if dtype == bound.dtype:
        return bound
    return (bound - bound.abs() * torch.finfo(dtype).eps).to(dtype)


def _scaled(code: SparseCode, norm: PerLatent) -> ActiveValues:
    return code.value * norm[code.latent]


def _filter(code: SparseCode, keep: Tensor) -> SparseCode:
    index = keep.nonzero().squeeze(1)
    return replace(code, token=code.token[index], latent=code.latent[index], value=code.value[index])


def _merge(pool: list[SparseCode]) -> SparseCode:
    token, latent, value = (
        torch.cat([getattr(part, name) for part in pool]) for name in ("token", "latent", "value")
    )
    return replace(pool[0], token=token, latent=latent, value=value)


def _sorted(code: SparseCode) -> SparseCode:
    order = torch.argsort(code.token * code.n_latents + code.latent)
    return replace(code, token=code.token[order], latent=code.latent[order], value=code.value[order])
