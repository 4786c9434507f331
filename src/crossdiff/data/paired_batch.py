"""Batches of paired activations, their memory, and windows of rows that are read ahead.

The window in use and the next one are in memory.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from crossdiff.data.moments import Moments
from crossdiff.data.order import EpochOrder


@dataclass(frozen=True)
class PairedBatch:
    """Activations of the same tokens in every model."""

    stored: Shaped[Tensor, "token model d_model"]
    """Raw activation units in the harvest's number format (int8 rows decoded to float32)."""
    row: Int[Tensor, " token"]
    """Index of the token in the token set."""
    document: Int[Tensor, " token"] | None
    """Index of the token's document; None where documents are unknown (imported activations)."""
    template: Bool[Tensor, " token"] | None
    """Whether the token is a template token; None where unknown."""

    @property
    def x(self) -> Float[Tensor, "token model d_model"]:
        """Raw activation units, float32; every call converts a narrower harvest."""
        return self.stored.float()

    def activations_on(self, device: torch.device | str) -> PairedBatch:
        """The batch with its activations on a device; CUDA reads pageable memory before it returns."""
        return replace(self, stored=self.stored.to(device, non_blocking=True))

    def to(self, device: torch.device | str) -> PairedBatch:
        """The batch with everything on a device."""
        parts = (self.stored, self.row, self.document, self.template)
        return PairedBatch(*(None if p is None else p.to(device, non_blocking=True) for p in parts))  # type: ignore[arg-type]


class BatchMemory:
    """Lends memory to batches and takes it back with the last view of a batch.

    Fresh memory of this size is cleared by the kernel page by page, which takes longer than filling it.
    """

    def __init__(self, *, keep: int = 2) -> None:
        self.keep = keep
        self._free: list[np.ndarray] = []

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """An uninitialised tensor, which shares no memory with a tensor in use."""
        n_bytes = math.prod(shape) * dtype.itemsize
        memory = self._free.pop() if self._free else np.empty(0, np.uint8)
        if memory.nbytes < n_bytes:
            memory = np.empty(n_bytes, np.uint8)
        lent = memory[:n_bytes]  # torch keeps this array while any view of the tensor exists
        weakref.finalize(lent, self._take_back, memory).atexit = False
        return torch.from_numpy(lent).view(dtype).view(shape)

    def _take_back(self, memory: np.ndarray) -> None:
        if len(self._free) < self.keep:
            self._free.append(memory)


@dataclass
class Window:
    """Stored rows of one window: whole blocks, and the places of their kept rows."""

    blocks: list[Tensor]
    """Per model [row, d_model] in storage dtype."""
    scales: list[Tensor | None]
    kept: Int[Tensor, " kept"]
    """Kept rows as indices into `blocks`."""
    rows: Int[Tensor, " kept"]
    """The same rows as token indices."""

    def gather(self, places: Int[Tensor, " token"], out: Shaped[Tensor, "token model d_model"]) -> None:
        """Write the kept rows at `places` into `out`, in its number format."""
        inside = self.kept[places]
        for model, (block, scale) in enumerate(zip(self.blocks, self.scales, strict=True)):
            if block.dtype == out.dtype:
                torch.index_select(block, 0, inside, out=out[:, model])
            else:
                out[:, model] = block.index_select(0, inside)
            if scale is not None:
                out[:, model] *= scale[inside, None]


class WindowReader:
    """Reads stretches of the shuffled stream; a thread reads the next window ahead."""

    def __init__(self, layers: Sequence[LayerRows], order: EpochOrder) -> None:
        self.layers = layers
        self.order = order
        self.d_model = layers[0].d_model
        self.dtype = reduce(torch.promote_types, (handed_over(layer.dtype) for layer in layers))
        self._memory = BatchMemory()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="window")
        self._windows: dict[tuple[int, int], Future[Window]] = {}
        self._spare: list[list[Tensor | None]] = []

    def in_another(self, order: EpochOrder) -> WindowReader:
        """A reader of the same single window in another order."""
        assert self.order.n_windows == order.n_windows == 1, "windows of several orders have other rows"
        other = WindowReader(self.layers, order)
        other._windows = self._windows
        return other

    def read(
        self, start: int, stop: int
    ) -> tuple[Shaped[Tensor, "token model d_model"], Int[Tensor, " token"]]:
        """Stored activations and token indices of positions `start` up to `stop` of the stream."""
        x = self._memory.take((stop - start, len(self.layers), self.d_model), self.dtype)
        rows = torch.empty(stop - start, dtype=torch.int64)
        place = 0
        for segment in self.order.segments(start, stop):
            window = self._window(segment.epoch, segment.window)
            places = self.order.shuffle(segment.epoch, segment.window)[segment.start : segment.stop]
            here = slice(place, place + len(places))
            window.gather(places, x[here])
            rows[here] = window.rows[places]
            place += len(places)
        return x, rows

    def close(self) -> None:
        """Stop reading ahead and free the windows."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._windows.clear()
        self._spare.clear()

    def _window(self, epoch: int, window: int) -> Window:
        # Only the window in use and the next one stay: releasing the others first gives their buffers to the
        # read that is started below, so that no third window is ever in memory.
        key = self._key(epoch, window)
        after = self.order.next_window(epoch, window)
        following = None if after is None else self._key(*after)
        for old in [k for k in self._windows if k not in (key, following)]:
            self._release(self._windows.pop(old))
        if key not in self._windows:
            self._windows[key] = self._pool.submit(self._load, *key)
        current = self._windows[key].result()
        if following is not None and following not in self._windows:
            self._windows[following] = self._pool.submit(self._load, *following)
        return current

    def _release(self, old: Future[Window]) -> None:
        """Keep the buffers of a used window; the kernel would have to clear fresh memory."""
        if not old.cancel():  # finished or running: its buffers are worth the wait
            self._spare.append(list(old.result().blocks))

    def _key(self, epoch: int, window: int) -> tuple[int, int]:
        """A single window has the same rows in every epoch and is read once."""
        return (0, 0) if self.order.n_windows == 1 else (epoch, window)

    def _load(self, epoch: int, window: int) -> Window:
        spans = self.order.spans(epoch, window)
        inside = torch.cat([torch.arange(start, stop) for start, stop in spans])
        kept = self.order.kept[inside].nonzero().flatten()
        spare = self._spare.pop() if self._spare else [None] * len(self.layers)
        read = [layer.read_spans(spans, buffer) for layer, buffer in zip(self.layers, spare, strict=True)]
        return Window([x for x, _ in read], [scale for _, scale in read], kept, inside[kept])


def handed_over(dtype: torch.dtype) -> torch.dtype:
    """Number format of batches from rows stored in `dtype`; int8 rows are decoded."""
    return torch.float32 if dtype == torch.int8 else dtype


class LayerRows(Protocol):
    """Activations [row, d_model] of one model at one layer, one row per token of the token set."""

    @property
    def folder(self) -> Path:
        """The harvest artifact, for messages."""
        ...

    @property
    def layer(self) -> int:
        """Index of the block whose output the rows are."""
        ...

    @property
    def token_hash(self) -> str:
        """Hash of the token set that the rows belong to."""
        ...

    @property
    def d_model(self) -> int:
        """Width of a row."""
        ...

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Number format of stored rows."""
        ...

    def place(self, row: int) -> str:
        """Origin of a row, for messages."""
        ...

    def moments(self) -> Moments:
        """Float64 moments per group of rows."""
        ...

    def norms(self) -> Float[Tensor, " row"]:
        """Euclidean norm of every row, raw units, float32."""
        ...

    def rows(self, rows: Int[Tensor, " row"]) -> Float[Tensor, "row d_model"]:
        """Float32 activations of arbitrary rows, in the order given."""
        ...

    def read_spans(
        self, spans: Sequence[tuple[int, int]], buffer: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Rows [row, d_model] of spans of whole documents, as stored, and their int8 scales if any.

        A `buffer` from an earlier call may be used again.
        """
        ...
