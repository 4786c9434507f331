"""What processes tell the one that started them, and the folder for that, which does not outlive a run."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from crossdiff.training.told import FAILED, NO_ROOM, begin_folder, raise_told, read_told, tell, tell_full_disk

N_BYTES = 1_000_000
"""More than a pipe holds."""
BEGIN_AND_DIE = """
import os, signal
from crossdiff.training.told import begin_folder
kept = begin_folder()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_is_told_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "7.part").write_bytes(b"begun")
    assert read_told(tmp_path) == []
    tell(tmp_path, (0, bytes(N_BYTES)))
    assert read_told(tmp_path) == [(0, bytes(N_BYTES))]


def test_the_folder_of_a_killed_process_is_removed_by_the_next_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    killed = subprocess.run(
        [sys.executable, "-c", BEGIN_AND_DIE], env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    (tmp_path / "crossdiff_ranks_begun").mkdir()  # by a process that has not locked its file yet
    elsewhere = (
        tmp_path / "crossdiff_ranks_elsewhere" / "in_use_another-machine"
    )  # whose locks we may not see
    elsewhere.parent.mkdir()
    elsewhere.touch()
    first, in_use = begin_folder()
    assert not left.exists()
    assert elsewhere.exists()
    second, also_in_use = begin_folder()
    assert {first, second} < set(tmp_path.iterdir())
    in_use.close()
    also_in_use.close()


def test_a_full_disk_is_raised_by_its_path_also_where_there_was_no_room_to_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raise_told(tmp_path, [0, FAILED])
    assert tell_full_disk(tmp_path, OSError(errno.EDQUOT, "quota", "/store/x")) == FAILED
    with pytest.raises(OSError, match="No space left on device: '/store/x'"):
        raise_told(tmp_path, [FAILED, None])

    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr("pickle.dump", no_room)
    (tmp_path / "empty").mkdir()
    assert tell_full_disk(tmp_path / "empty", RuntimeError("No space left on device")) == NO_ROOM
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}/empty'"):
        raise_told(tmp_path / "empty", [0, NO_ROOM])
