"""Windows of blocks, read ahead in the background; memory holds the window in use and the next one."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from crossdiff.data.layer_rows import LayerRows
from crossdiff.data.order import EpochOrder
from crossdiff.data.paired_batch import BatchMemory


@dataclass
class Window:
    """Stored rows of one window: whole blocks, and which of their rows are kept."""

    blocks: list[Tensor]
    """Per model [row, d_model] in storage dtype."""
    scales: list[Tensor | None]
    kept: Int[Tensor, " kept"]
    """Kept rows as indices into `blocks`."""
    rows: Int[Tensor, " kept"]
    """The same rows as token indices."""

    def gather(self, places: Int[Tensor, " token"], out: Shaped[Tensor, "token model d_model"]) -> None:
        """Write activations of some kept rows into `out`, in its number format."""
        inside = self.kept[places]
        for model, (block, scale) in enumerate(zip(self.blocks, self.scales, strict=True)):
            if block.dtype == out.dtype:
                torch.index_select(block, 0, inside, out=out[:, model])
            else:
                out[:, model] = block.index_select(0, inside)
            if scale is not None:
                out[:, model] *= scale[inside, None]


class WindowReader:
    """Reads addressed stretches of the shuffled stream; the next window is fetched by a thread."""

    def __init__(self, layers: Sequence[LayerRows], order: EpochOrder) -> None:
        self.layers = layers
        self.order = order
        self.dtype = reduce(torch.promote_types, (handed_over(layer.dtype) for layer in layers))
        self._memory = BatchMemory()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="window")
        self._windows: dict[tuple[int, int], Future[Window]] = {}
        self._spare: list[list[Tensor | None]] = []

    def read(
        self, start: int, stop: int
    ) -> tuple[Shaped[Tensor, "token model d_model"], Int[Tensor, " token"]]:
        """Stored activations and token indices of positions `start` up to `stop` of the stream."""
        x = self._memory.take((stop - start, len(self.layers), self.layers[0].d_model), self.dtype)
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
        found = self._windows[key].result()
        if following is not None and following not in self._windows:
            self._windows[following] = self._pool.submit(self._load, *following)
        return found

    def _release(self, old: Future[Window]) -> None:
        """Keep the buffers of a window that is over; fresh memory would be cleared by the kernel again."""
        if not old.cancel():  # it has run, or is running: wait for it, its buffers are worth it
            self._spare.append(list(old.result().blocks))

    def _key(self, epoch: int, window: int) -> tuple[int, int]:
        """A data set of one window has the same rows in every epoch and is read once."""
        return (0, 0) if self.order.n_windows == 1 else (epoch, window)

    def _load(self, epoch: int, window: int) -> Window:
        spans = self.order.spans(epoch, window)
        inside = torch.cat([torch.arange(start, stop) for start, stop in spans])
        kept = self.order.kept[inside].nonzero().flatten()
        spare = self._spare.pop() if self._spare else [None] * len(self.layers)
        found = [layer.read_spans(spans, buffer) for layer, buffer in zip(self.layers, spare, strict=True)]
        return Window([x for x, _ in found], [scale for _, scale in found], kept, inside[kept])


def handed_over(dtype: torch.dtype) -> torch.dtype:
    """Number format of batches from rows kept in `dtype`: their own; int8 rows are decoded."""
    return torch.float32 if dtype == torch.int8 else dtype
