"""The sha256 of a file, and rights of files that follow the umask."""

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
    """Give a file with rights for its owner alone those that `open` would give.

    safetensors always writes 0600, so that a group could not read its shared store. Files
    with rights for others, and files of other users, stay as they are.
    """
    status = path.stat()
    wanted = (status.st_mode & 0o7777) | (_ANYBODY & ~umask())
    if status.st_mode & 0o077 == 0 and wanted != status.st_mode & 0o7777 and status.st_uid == os.geteuid():
        path.chmod(wanted)


def umask() -> int:
    """The umask of this process, on Linux read without changing it, because threads share it."""
    process = Path("/proc/self/status")
    lines = process.read_text().splitlines() if process.is_file() else []
    for line in lines:
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
