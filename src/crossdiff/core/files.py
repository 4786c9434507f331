"""Two things about files that every room needs: the sha256 of one, and rights that follow the umask."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_ANYBODY = 0o666


def file_sha256(path: str | Path) -> str:
    """Hex sha256 of a file, read in blocks."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def follow_umask(path: Path) -> None:
    """Give a file that was written for its owner alone the rights that `open` would have given it.

    safetensors writes 0600 whatever the umask, so that a group could not read a store that it shares. Files
    with rights for others stay as they are, and so do those that this user does not own.
    """
    status = path.stat()
    wanted = (status.st_mode & 0o7777) | (_ANYBODY & ~umask())
    if status.st_mode & 0o077 == 0 and wanted != status.st_mode & 0o7777 and status.st_uid == os.geteuid():
        path.chmod(wanted)


def umask() -> int:
    """The umask of this process, read without changing it where Linux tells it (threads share the mask)."""
    process = Path("/proc/self/status")
    lines = process.read_text().splitlines() if process.is_file() else []
    for line in lines:
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
