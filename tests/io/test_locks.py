"""Locks keep processes apart where the file system has them, and stop nobody where it has none."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from crossdiff.io import locks


@pytest.fixture(params=[errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system whose flock answers with one of these errors."""
    refuse(monkeypatch, request.param)


def refuse(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def flock(*_args: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    locks._tell.cache_clear()


def test_a_second_holder_is_kept_out_until_the_first_closes(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("a") as first, (tmp_path / "lock").open("a") as second:
        assert locks.lock(first, wait=False)
        assert not locks.lock(second, wait=False)
        first.close()
        assert locks.lock(second, wait=True)


def test_without_locks_one_line_says_so_and_work_goes_on(
    tmp_path: Path, no_locks: None, capsys: pytest.CaptureFixture[str]
) -> None:
    for wait in (False, True):
        with (tmp_path / "lock").open("a") as handle:
            assert locks.lock(handle, wait=wait)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: the store's file system has no file locks (")
    assert "two commands at the same time are not kept apart" in line


def test_another_failure_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, errno.EIO)
    with (tmp_path / "lock").open("a") as handle, pytest.raises(OSError, match="Input/output"):
        locks.lock(handle, wait=True)


def test_a_store_without_locks_is_worked_in(tmp_path: Path, no_locks: None) -> None:
    from crossdiff.dispatch.local import _sole_writer
    from crossdiff.dispatch.register import Register

    with Register(tmp_path).locked(), _sole_writer(tmp_path / ".key.lock", "harvest m"):
        pass
    assert not (tmp_path / ".key.lock").exists()
