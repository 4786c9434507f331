"""Locks on open files. The kernel frees them when their process dies; some file systems have none."""

from __future__ import annotations

import errno
import fcntl
import sys
from functools import cache
from typing import IO

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)
"""What flock answers on Lustre without `-o flock`, NFS without lockd, and some FUSE file systems."""


def lock(handle: IO[str], *, wait: bool) -> bool:
    """Lock an open file for this process; False while another process has it and `wait` is not set.

    Where the file system has no locks this is said once and True: every process then takes itself for the
    only one. Any other failure is the OSError.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        _tell(str(error.strerror))
    return True


@cache
def _tell(reason: str) -> None:
    """One line per process, however many files are locked."""
    print(
        f"warning: the store's file system has no file locks ({reason}), so two commands at the same time "
        "are not kept apart here; start one after the other, or mount it with flock",
        file=sys.stderr,
        flush=True,
    )
