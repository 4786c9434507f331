"""The folder into which the processes of a run write results and errors for the process that started them."""

from __future__ import annotations

import errno
import fcntl
import os
import pickle
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from crossdiff.io.tables import errors_name

FAILED, NO_ROOM = 3, 4
"""Exit codes of a process: it has told its error, which the parent raises again; it could not, for its disk
is full."""
PREFIX, IN_USE = "crossdiff_ranks_", f"in_use_{os.uname().nodename}"
"""The file that is locked names its machine: on some file systems (Lustre's `localflock`, NFS's `local_lock`)
a lock holds on one machine alone, and another would take a running process for a killed one."""


def begin_folder() -> tuple[Path, IO[str]]:
    """A new folder in $TMPDIR, and a file in it that is locked until this process closes it or ends.

    Folders whose process was killed on this machine are removed.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{IN_USE}"):
        with suppress(OSError), left.open("r+") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left.parent, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    aside = folder / "not_yet"
    in_use = aside.open("w")
    with suppress(OSError):  # a file system without locks: nobody removes this folder then
        fcntl.flock(in_use, fcntl.LOCK_EX)
        aside.rename(folder / IN_USE)
    return folder, in_use


def tell(folder: Path, what: Any) -> None:
    """Write a result or an error for the process that started this one, completely or not at all.

    Not through a pipe: if the writer is killed midway, the reader of a pipe waits for ever.
    """
    aside = folder / f"{os.getpid()}.part"
    with errors_name(aside), aside.open("wb") as handle:
        pickle.dump(what, handle)
    aside.rename(aside.with_suffix(".pickle"))


def tell_full_disk(folder: Path, error: BaseException) -> int:
    """Tell that the disk is full that `error` names; the exit code of this process."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), getattr(error, "filename", None))
    try:
        tell(folder, full)
    except OSError:
        return NO_ROOM
    return FAILED


def read_told(folder: Path) -> list[Any]:
    """What our processes have written, in the order of time."""
    files = sorted(folder.glob("*.pickle"), key=lambda file: file.stat().st_mtime_ns)
    return [pickle.loads(file.read_bytes()) for file in files]


def raise_told(folder: Path, exit_codes: list[int | None]) -> None:
    """Raise the first error that a process has written, or that there was no disk space for one."""
    for told in read_told(folder):
        if isinstance(told, ValueError | MemoryError | OSError):
            raise told from None
    if NO_ROOM in exit_codes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from None
