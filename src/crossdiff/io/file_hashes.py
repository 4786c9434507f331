"""sha256 of large files, cached between commands, so that plans do not read 54 GB of weights again."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from crossdiff.core import files

REMEMBERED_BYTES = 1 << 24
"""Smallest file whose hash is cached; 16 MiB take about 10 ms to hash."""
TOLD_BYTES = 1 << 30
"""Size from which a line announces the reading, which takes seconds to minutes."""
SETTLED_S = 10.0
"""Least age of a cached file's last change; time stamps may be as coarse as 2 s."""


def file_sha256(path: str | Path) -> str:
    """sha256 of a file; a large file is read once, until its path, size, times or inode change.

    The cache is `$XDG_CACHE_HOME/crossdiff/sha256`, one record per path; a damaged record is ignored.
    OSError where the file cannot be read.
    """
    absolute = os.path.abspath(path)
    identity = _identity(absolute)
    return files.file_sha256(absolute) if identity[0] < REMEMBERED_BYTES else _known(absolute, *identity)


@lru_cache(maxsize=4096)
def _known(path: str, *identity: int) -> str:
    record = _folder() / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json"
    if (remembered := _remembered(record, identity)) is not None:
        return remembered
    if identity[0] >= TOLD_BYTES:
        size = f"{identity[0] / 1e9:.1f} GB"
        print(f"reading {path} once for its hash ({size}) ...", file=sys.stderr, flush=True)
    sha256 = files.file_sha256(path)
    if _identity(path) == identity and time.time() - max(identity[1:3]) / 1e9 > SETTLED_S:
        _remember(record, {"path": repr(path), "identity": identity, "sha256": sha256})
    return sha256


def _identity(path: str) -> tuple[int, int, int, int]:
    """Size, mtime and ctime (ns), inode; of the file behind a link."""
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "crossdiff" / "sha256"


def _remembered(record: Path, identity: tuple[int, ...]) -> str | None:
    """The hash in a record with this identity; else None."""
    try:
        remembered = json.loads(record.read_bytes())
        same = remembered["identity"] == list(identity)
        return bytes.fromhex(remembered["sha256"]).hex() if same and len(remembered["sha256"]) == 64 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(record: Path, content: dict[str, Any]) -> None:
    """Write a record aside and rename it, because several commands may do so at once."""
    aside = record.with_name(f".{record.name}.{uuid4().hex}.part")
    with suppress(OSError):
        record.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(content), encoding="utf-8")
        os.replace(aside, record)
