"""A store that two users share: group-writable works, anything else names path and owner."""

import os
import shutil
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_plan import chain, submission

from crossdiff.dispatch.slurm import submit
from crossdiff.dispatch.store import draft_folder, prepare_store, warn_of_little_room
from crossdiff.pipeline.steps import Cost, Job, Step

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


def big_plan() -> list[Step]:
    """Two harvests of 715 GB each, and steps of no size or of one that is not known."""
    plan = chain("pt_it", layer=1)
    for step, size in zip(plan, (0.0, 715.0, 715.0, None, 0.0, 0.0), strict=True):
        object.__setattr__(step, "cost", Cost(disk_gb=size))
    return plan


def with_free_gb(monkeypatch: pytest.MonkeyPatch, free_gb: float) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _store: SimpleNamespace(free=free_gb * 1e9))


def test_a_plan_larger_than_the_free_disk_is_told_of_once_and_not_refused(
    tmp_path: Path, stub: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_free_gb(monkeypatch, 1000)
    assert len(submit(submission(tmp_path / "store", big_plan())).new) == 6
    (line,) = capsys.readouterr().err.splitlines()
    assert "about 1,430 GB still to write" in line
    assert f"store={tmp_path / 'store'} has 1,000 GB free" in line
    assert "give another store=/path" in line


def test_what_is_finished_or_in_a_draft_needs_no_room(
    tmp_path: Path, fakes: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = big_plan()
    with_free_gb(monkeypatch, 1431)
    warn_of_little_room(plan, tmp_path)
    with_free_gb(monkeypatch, 1429.9)
    draft = draft_folder(Job((plan[1],)), tmp_path) / "layer_1"
    draft.mkdir(parents=True)
    with (draft / "shard_00000.safetensors").open("wb") as handle:
        handle.truncate(200_000_000)
    warn_of_little_room(plan, tmp_path)
    assert capsys.readouterr().err == ""
    with_free_gb(monkeypatch, 714)
    (plan[2].folder(tmp_path)).mkdir()
    (plan[2].folder(tmp_path) / "manifest.json").write_text("{}")
    warn_of_little_room(plan, tmp_path)
    assert "about 715 GB still to write" in capsys.readouterr().err
