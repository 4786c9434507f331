"""Activations of several models on one token set, row for row, read from finished harvests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from crossdiff.data.aligned_rows import AlignedRows
from crossdiff.data.harvest.on_the_fly import LiveLayer
from crossdiff.data.harvest.read import HarvestedLayer
from crossdiff.data.harvest.write import read_record
from crossdiff.data.moments import N_KINDS, Moments, row_groups
from crossdiff.data.order import (
    CorpusOrder,
    EpochOrder,
    document_blocks,
    dropped_tokens,
    kept_kinds,
    kept_tokens,
)
from crossdiff.data.paired_batch import LayerRows, PairedBatch, WindowReader
from crossdiff.data.settings import MaskSettings
from crossdiff.data.tokens import ALIGNED, TokenKind, TokenSet

Split = Literal["train", "validation", "all"]
WINDOW_BYTES = 1 << 30
"""Bytes of stored activations of all models that are mixed at a time."""
PASS_BYTES = 1 << 28
"""Bytes per window of a pass in corpus order, which has two in memory."""


class PairedActivations:
    """The activations of several models on one token set, as rows [token, model, d_model]."""

    def __init__(self, token_set: TokenSet, layers: Sequence[LayerRows], mask: MaskSettings) -> None:
        self.token_set = token_set
        self.layers = list(layers)
        self.mask = mask
        self.n_models = len(layers)
        self.n_rows = token_set.n_tokens
        self.d_model = layers[0].d_model
        self.widths = [rows.width if isinstance(rows, AlignedRows) else rows.d_model for rows in layers]
        self.kept = kept_tokens(token_set, mask)
        if mask.outlier_norm is not None:
            self.kept &= self._within_norm()
        self._readers: dict[int, WindowReader] = {}

    @classmethod
    def open(
        cls,
        tokens: Path,
        harvests: Sequence[Path],
        *,
        layer: int,
        mask: MaskSettings | None = None,
        device: str = "cpu",
    ) -> PairedActivations:
        """Open finished artifacts; ValueError for harvests of other tokens or unequal width.

        `device` runs the models of a `live` source.
        """
        token_set = TokenSet.open(tokens)
        layers = open_layers(token_set, harvests, layer=layer, device=device)
        paired = cls(token_set, layers, mask or MaskSettings())
        if not paired.kept.any():
            raise ValueError(paired.why_none_is_kept())
        return paired

    def rows(self, split: Split = "all") -> Int[Tensor, " row"]:
        """Token indices that the mask keeps, ascending."""
        return self._split_mask(split).nonzero().flatten()

    def why_none_is_kept(self) -> str:
        """Message with the number of tokens that each rule of the mask drops by itself."""
        dropped = dropped_tokens(self.token_set, self.mask)
        if self.mask.outlier_norm is not None:
            dropped[f"mask.outlier_norm={self.mask.outlier_norm:g}"] = ~self._within_norm()
        counts = ", ".join(f"{rule} {int(which.sum()):,}" for rule, which in dropped.items())
        return f"the mask keeps none of the {self.n_rows:,} tokens ({counts}); loosen it or give more text"

    def statistics(self) -> tuple[Float[Tensor, "model d_model"], Float[Tensor, "model d_model"]]:
        """Mean and variance (population, float64, raw units) per model over the kept training rows."""
        moments = [self._training_moments(harvested) for harvested in self.layers]
        return torch.cat([moment.mean for moment in moments]), torch.cat([m.variance() for m in moments])

    def read(self, rows: Int[Tensor, " row"]) -> PairedBatch:
        """Activations of arbitrary rows, in the order given."""
        x = torch.stack([harvested.rows(rows) for harvested in self.layers], dim=1)
        return self._batch(x, rows)

    def document_of(self, rows: Int[Tensor, " row"]) -> Int[Tensor, " row"]:
        """Index of each row's document."""
        return self.token_set.document_of(rows)

    def batches(self, *, split: Split = "all", batch_size: int) -> Iterator[PairedBatch]:
        """Kept rows in corpus order, read ahead in the background."""
        offsets = self.token_set.offsets
        blocks = document_blocks(offsets) if split == "all" else offsets.unique()
        return self._pass(self._split_mask(split), blocks, batch_size)

    def batches_of(self, rows: Int[Tensor, " row"], *, batch_size: int) -> Iterator[PairedBatch]:
        """The given rows in corpus order; only their documents are read."""
        chosen = torch.zeros(self.n_rows, dtype=torch.bool)
        chosen[rows] = True
        return self._pass(chosen, self.token_set.offsets.unique(), batch_size)

    def _pass(
        self, chosen: Bool[Tensor, " row"], blocks: Int[Tensor, " block_boundary"], batch_size: int
    ) -> Iterator[PairedBatch]:
        if not chosen.any():
            return
        window_blocks = self._blocks_per_window(len(blocks) - 1, int(chosen.sum()), PASS_BYTES)
        order = CorpusOrder(chosen, blocks, window_blocks=window_blocks)
        reader = WindowReader(self.layers, order)
        try:
            for start in range(0, order.n_rows, batch_size):
                yield self._batch(*reader.read(start, min(start + batch_size, order.n_rows)))
        finally:
            reader.close()

    def training_batch(self, number: int, *, seed: int, batch_size: int) -> PairedBatch:
        """Batch `number` of the shuffled stream of training rows, a pure function of its arguments.

        Batches are always full: one at the end of an epoch continues into the next.
        """
        reader = self._window_reader(seed)
        start = number * batch_size
        x, rows = reader.read(start, start + batch_size)
        return self._batch(x, rows)

    def place(self, row: int, model: int) -> str:
        """Shard file and row inside it of a model's row, for messages."""
        return self.layers[model].place(row)

    def close(self) -> None:
        """Stop reading ahead and free the windows."""
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()

    @property
    def fits_one_window(self) -> bool:
        """Whether all training rows fit one window, so that several orders can share them."""
        return self._training_order(0).n_windows == 1

    def _training_order(self, seed: int) -> EpochOrder:
        blocks = document_blocks(self.token_set.offsets)
        window_blocks = self._blocks_per_window(len(blocks) - 1, self.n_rows, WINDOW_BYTES)
        return EpochOrder(self._split_mask("train"), blocks, seed=seed, window_blocks=window_blocks)

    def _window_reader(self, seed: int) -> WindowReader:
        if seed in self._readers:
            return self._readers[seed]
        order, others = self._training_order(seed), list(self._readers.values())
        if others and order.n_windows == 1:
            self._readers[seed] = others[0].in_another(order)
        else:
            self.close()
            self._readers[seed] = WindowReader(self.layers, order)
        return self._readers[seed]

    def _blocks_per_window(self, n_blocks: int, n_rows: int, window_bytes: int) -> int:
        """Blocks per window of about `window_bytes`, where `n_blocks` have `n_rows` chosen rows."""
        data_bytes = n_rows * self.d_model * sum(rows.dtype.itemsize for rows in self.layers)
        n_windows = -(-data_bytes // window_bytes)
        return -(-n_blocks // n_windows)

    def _batch(self, stored: Shaped[Tensor, "token model d_model"], rows: Int[Tensor, " row"]) -> PairedBatch:
        tokens = self.token_set
        document = None if "documents" in tokens.unknown else tokens.document_of(rows)
        template = None if "template" in tokens.unknown else tokens.kind[rows] == TokenKind.TEMPLATE
        return PairedBatch(stored=stored, row=rows, document=document, template=template)

    def _split_mask(self, split: Split) -> Bool[Tensor, " row"]:
        if split == "all":
            return self.kept
        held_out = self.token_set.held_out
        return self.kept & (held_out if split == "validation" else ~held_out)

    def _within_norm(self) -> Bool[Tensor, " row"]:
        """Rows whose norm in every model is at most `outlier_norm` times that model's median."""
        assert self.mask.outlier_norm is not None
        within = torch.ones(self.n_rows, dtype=torch.bool)
        for harvested in self.layers:
            norms = harvested.norms()
            within &= norms <= self.mask.outlier_norm * norms.nanmedian()
        return within

    def _training_moments(self, harvested: LayerRows) -> Moments:
        chosen = torch.zeros(2 * N_KINDS, dtype=torch.bool)
        chosen[torch.tensor(kept_kinds(self.mask))] = True
        by_kind = not self.mask.skip_first and self.mask.outlier_norm is None
        if by_kind and self.token_set.place is None:
            return harvested.moments().pooled(chosen)
        total = Moments.zeros(self.d_model)
        for rows in self.rows("train").split(16_384):
            group = row_groups(self.token_set.kind[rows], self.token_set.held_out[rows])
            total = total.merge(Moments.of(harvested.rows(rows), group))
        return total.pooled(chosen)


def open_layers(token_set: TokenSet, harvests: Sequence[Path], *, layer: int, device: str) -> list[LayerRows]:
    """Rows of every model; ValueError for harvests of other tokens, or unequal width in one family."""
    opened = [_open_layer(harvest, layer, token_set, device) for harvest in harvests]
    width = max(rows.d_model for rows in opened)
    if token_set.place is None:
        for rows in opened:
            _check_tokens(rows, token_set)
        if any(rows.d_model < width for rows in opened):
            widths = ", ".join(f"{rows.folder} has {rows.d_model}" for rows in opened)
            raise ValueError(
                f"the models of a pair need one d_model: {widths}; choose models of one family, or give "
                "model_pair.alignment=characters"
            )
        return opened
    assert token_set.folder is not None
    other = TokenSet.open(token_set.folder / ALIGNED)
    read = [token_set if rows.token_hash == token_set.token_hash else other for rows in opened]
    for rows, tokens in zip(opened, read, strict=True):
        _check_tokens(rows, tokens)
    return [AlignedRows.of(rows, tokens, token_set, width) for rows, tokens in zip(opened, read, strict=True)]


def _open_layer(folder: Path, layer: int, tokens: TokenSet, device: str) -> LayerRows:
    record = read_record(folder, layer)
    if "live" in record:
        assert tokens.folder is not None
        return LiveLayer(folder, layer, record, tokens.folder, device)
    return HarvestedLayer.open(folder, layer, record)


def _check_tokens(harvested: LayerRows, tokens: TokenSet) -> None:
    if harvested.token_hash != tokens.token_hash:
        raise ValueError(
            f"{harvested.folder} was harvested on tokens {harvested.token_hash[:16]}, but {tokens.folder} "
            f"has {tokens.token_hash[:16]}; all harvests of a pair need one token set: harvest this "
            "model again on it"
        )
    if harvested.n_rows != tokens.n_tokens:
        raise ValueError(
            f"{harvested.folder} has {harvested.n_rows:,} rows for {tokens.n_tokens:,} tokens; "
            "it is incomplete: remove it and run the same command again"
        )
