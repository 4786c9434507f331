"""Rows of a hub dataset, streamed; a network that goes away for some minutes is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from crossdiff.data.corpus import HubSource
from crossdiff.models.hub import hub, is_outage

WAITS_S = (15.0, 45.0, 120.0, 180.0, 240.0)
"""Pauses before a broken stream is opened again: 10 minutes, after the `datasets` library's own attempts."""


def hub_rows(
    source: HubSource, start: int, *, sleep: Callable[[float], object] = time.sleep
) -> Iterator[tuple[int, Any]]:
    """(position, row) from position `start` on.

    Once the dataset was reached, an outage is told in one line and the stream opened again where it broke;
    every row that arrives gives all attempts back. ValueError where it cannot be reached or read.
    """
    way_out = "download it and use corpus=files 'corpus.paths=[folder]' (and check the name and your access)"
    position, n_failed, reached = start, 0, False
    with hub(f"dataset {source.dataset}", way_out=way_out):
        while True:
            try:
                stream = _opened(source)
                reached = True
                for row in stream.skip(position):
                    position, n_failed = position + 1, 0
                    yield position - 1, row
                return
            except Exception as error:
                if not reached or n_failed == len(WAITS_S) or not is_outage(error):
                    raise
                _tell(source, position, error, n_failed)
            sleep(WAITS_S[n_failed])
            n_failed += 1


def _opened(source: HubSource) -> Any:
    import datasets

    return datasets.load_dataset(
        source.dataset, source.config, split=source.split, revision=source.revision, streaming=True
    )


def _tell(source: HubSource, position: int, error: Exception, n_failed: int) -> None:
    reason = " ".join(str(error).split())[:120]
    print(
        f"dataset {source.dataset} broke off at row {position:,} ({type(error).__name__}: {reason}); opening "
        f"it again in {WAITS_S[n_failed]:.0f} s (attempt {n_failed + 1} of {len(WAITS_S)})",
        flush=True,
    )
