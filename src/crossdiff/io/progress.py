"""Progress with rate and time left: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from tqdm import tqdm

Item = TypeVar("Item")


_title: list[str] = []
"""Name of this process' step, where several processes run steps."""


def title_lines(name: str) -> None:
    """Show plain lines that begin with `name`, for several processes on one terminal."""
    _title[:] = [name]


class _PlainLines:
    """A `tqdm` file that turns redraws into lines."""

    def write(self, text: str) -> None:
        line = text.replace("\r", "").strip()
        if line:
            sys.stderr.write(line + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


def bar(*, total: int | None, description: str, unit: str, enabled: bool = True) -> tqdm:
    """A progress bar, advanced with `.update(n)`."""
    from tqdm import tqdm

    on_terminal = sys.stderr.isatty() and not _title
    return tqdm(
        total=total,
        desc=": ".join([*_title, description]),
        unit=unit,
        unit_scale=True,
        disable=not enabled,
        file=sys.stderr if on_terminal else _PlainLines(),
        mininterval=0.2 if on_terminal else 15.0,
        miniters=None if on_terminal else 1,
        ncols=None if on_terminal else 100,
        leave=False,
    )


def track(
    items: Iterable[Item],
    *,
    total: int | None = None,
    description: str,
    unit: str = "batch",
    enabled: bool = True,
) -> Iterator[Item]:
    """Yield `items` while a bar shows progress, rate and time left."""
    with bar(total=total, description=description, unit=unit, enabled=enabled) as progress:
        progress.start_t = time.time()
        for item in items:
            yield item
            progress.update(1)


def show_notices(step: str, notices: Iterable[str]) -> None:
    """Print a step's notices, one line each."""
    for notice in notices:
        print(f"{step}: {notice}", flush=True)
