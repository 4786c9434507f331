"""A store that two users share: group-writable works, anything else names path and owner."""

import os
import stat
from pathlib import Path

import pytest

from crossdiff.dispatch.store import prepare_store

ALICE, BOB, LAB = 12001, 12002, 12003


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    if os.geteuid() != 0:
        pytest.skip("needs root, to act as two users")
    for folder in (tmp_path, *tmp_path.parents):
        if str(folder).startswith("/tmp/"):
            folder.chmod(folder.stat().st_mode | stat.S_IXOTH | stat.S_IROTH)
    store = tmp_path / "store"
    store.mkdir()
    os.chown(store, ALICE, LAB)
    store.chmod(0o2775)
    return store


def as_user(user: int, action) -> str:
    """What `action` returns or raises in a process of that user, in the group of the lab."""
    readable, writable = os.pipe()
    if os.fork() == 0:
        os.close(readable)
        os.setgroups([LAB])
        os.setgid(user)
        os.setuid(user)
        try:
            told = str(action())
        except ValueError as error:
            told = f"ValueError: {error}"
        os.write(writable, told.encode())
        os._exit(0)
    os.close(writable)
    with os.fdopen(readable) as pipe:
        told = pipe.read()
    os.wait()
    return told


def use(store: Path, name: str) -> str:
    prepare_store(store)
    folder = store / "tokens"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("x")
    return "written"


def test_two_users_of_a_group_writable_store_go_on_from_each_other(shared: Path) -> None:
    assert as_user(ALICE, lambda: use(shared, "first")) == "written"
    assert as_user(BOB, lambda: use(shared, "second")) == "written"
    assert (shared / "tokens").stat().st_mode & stat.S_IWGRP
    assert (shared / "tokens" / "second").stat().st_gid == LAB


def test_a_store_of_somebody_else_names_path_and_owner(shared: Path) -> None:
    shared.chmod(0o755)
    told = as_user(BOB, lambda: use(shared, "second"))
    assert told.startswith(f"ValueError: store={shared} cannot be written")
    assert f"belongs to user {ALICE}" in told


def test_a_part_of_the_store_that_is_not_shared_names_path_and_owner(shared: Path) -> None:
    closed = shared / "train"
    closed.mkdir()
    os.chown(closed, ALICE, LAB)
    closed.chmod(0o755)
    told = as_user(BOB, lambda: use(shared, "second"))
    assert told.startswith(f"ValueError: {closed} cannot be written, it belongs to user {ALICE}")
    assert "chmod -R g+rwX" in told


def test_a_private_store_leaves_the_umask_alone(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        prepare_store(tmp_path / "mine")
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)
