"""A block of a crosscoder's latents, held by one of the ranks that share a dictionary, and sums over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from crossdiff.core.codes import ActiveValues, Bias
from crossdiff.core.collective import gather_over_ranks, n_ranks, sum_over_ranks
from crossdiff.core.crosscoder import LATENT_CHUNK, Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.normaliser import Normaliser


@dataclass(frozen=True)
class Shard:
    """Block `index` of the `n_shards` equal blocks of neighbouring latents of a dictionary of `n_latents`."""

    index: int
    n_shards: int
    n_latents: int

    @property
    def size(self) -> int:
        """Latents of a block."""
        return self.n_latents // self.n_shards

    @property
    def rows(self) -> slice:
        """This block's latents in the whole dictionary."""
        return slice(self.index * self.size, (self.index + 1) * self.size)


class CrosscoderShard(Crosscoder):
    """The rows of one block of latents; the decoder bias is whole and the same on all ranks.

    `decode_normalised` is the whole dictionary's: all ranks call it with their codes of the same tokens.
    Everything else is about this block alone. `settings` are those of a dictionary of the block's size.
    """

    def __init__(
        self,
        settings: DictionarySettings,
        *,
        shard: Shard,
        n_models: int,
        d_model: int,
        normaliser: Normaliser | None = None,
    ) -> None:
        own = settings.model_copy(update={"n_latents": shard.size})
        super().__init__(own, n_models=n_models, d_model=d_model, normaliser=normaliser)
        self.shard = shard

    @classmethod
    def of(cls, whole: Crosscoder, shard: Shard) -> CrosscoderShard:
        """A block of a crosscoder, with copies of its rows and of what all blocks share."""
        shape = {"n_models": whole.n_models, "d_model": whole.d_model}
        own = cls(whole.settings, shard=shard, **shape, normaliser=whole.normaliser).to(whole.decoder.dtype)
        with torch.no_grad():
            for name in ("encoder", "encoder_bias", "decoder"):
                getattr(own, name).copy_(getattr(whole, name)[shard.rows])
            own.decoder_bias.copy_(whole.decoder_bias)
        return own

    @torch.no_grad()
    def initialise_(self, generator: torch.Generator, *, decoder_bias: Bias | None = None) -> None:
        """The rows that the whole dictionary would have; they are drawn piece by piece and not all held."""
        drawn = 1 if self.settings.initial_decoders == "equal" else self.n_models
        rows, first = self.shard.rows, 0
        for n in _pieces(self.shard.n_latents):
            piece = torch.randn(n, drawn, self.d_model, generator=generator)
            start, stop = max(first, rows.start), min(first + n, rows.stop)
            if start < stop:
                self.decoder[start - rows.start : stop - rows.start] = piece[start - first : stop - first]
            first += n
        self.decoder *= self.settings.initial_norm / self.decoder.norm(dim=(1, 2), keepdim=True)
        self.encoder.copy_(self.decoder)
        self.encoder_bias.zero_()
        self.decoder_bias.zero_() if decoder_bias is None else self.decoder_bias.copy_(decoder_bias)

    def summed(self, reconstruction: Float[Tensor, "token width"]) -> Float[Tensor, "token width"]:
        """The sum over all blocks, on all ranks."""
        return sum_over_ranks(reconstruction, "shards")


def _pieces(n_latents: int) -> list[int]:
    """Sizes of pieces that torch draws as it would draw all at once: multiples of 16, the last one large."""
    n_pieces = max(1, n_latents // LATENT_CHUNK)
    return [LATENT_CHUNK] * (n_pieces - 1) + [n_latents - LATENT_CHUNK * (n_pieces - 1)]


def n_latents_of_all(crosscoder: Crosscoder) -> int:
    """Latents of the whole dictionary that a crosscoder is, or is a block of."""
    return crosscoder.shard.n_latents if isinstance(crosscoder, CrosscoderShard) else crosscoder.n_latents


def sum_over_shards(crosscoder: Crosscoder, own: Sequence[int]) -> list[int]:
    """Numbers about the latents that this rank holds, added over all blocks."""
    if not isinstance(crosscoder, CrosscoderShard):
        return list(own)
    numbers = torch.tensor(list(own), dtype=torch.int64, device=crosscoder.encoder.device)
    return sum_over_ranks(numbers, "shards").tolist()


def mean_over_shards(crosscoder: Crosscoder, own: Sequence[float]) -> list[float]:
    """Means over the latents that this rank holds, taken over all blocks, which are equally large."""
    if not isinstance(crosscoder, CrosscoderShard):
        return list(own)
    numbers = torch.tensor(list(own), dtype=torch.float64, device=crosscoder.encoder.device)
    return (sum_over_ranks(numbers, "shards") / n_ranks("shards")).tolist()


def largest_of_shards(
    crosscoder: Crosscoder, best: ActiveValues, *, count: int, limit: int
) -> Float[Tensor, " kept"]:
    """The `count` largest of all blocks' positive values; `limit` is at least every rank's number of them."""
    if not isinstance(crosscoder, CrosscoderShard):
        return best
    everyone = torch.cat(gather_over_ranks(padded(best, limit, 0), "shards"))
    everyone = everyone[everyone > 0]
    return everyone.topk(count, sorted=False).values if everyone.numel() > count else everyone


def padded(values: Tensor, limit: int, filler: float | int) -> Tensor:
    """A list of `limit` entries, so that all ranks have as many."""
    longer = values.new_full((limit,), filler)
    longer[: values.numel()] = values
    return longer
