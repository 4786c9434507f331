"""Keys hold every input; drafts become artifacts by one rename; damage is seen."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import save_file

from crossdiff.io import artifacts
from crossdiff.io.artifacts import (
    DamagedArtifact,
    artifact_key,
    provenance,
    publish,
    read_manifest,
    verify,
    write_manifest,
)
from crossdiff.settings import Settings


class Inner(Settings):
    rate: float = 0.1


class Inputs(Settings):
    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset({"path"})
    seed: int = 0
    inner: Inner = Inner()
    path: str = "/here"


def key(inputs: Inputs, *, version: int = 1, parents: dict[str, str] | None = None) -> str:
    return artifact_key("train", version, inputs, parents or {})


def test_every_input_parent_and_version_changes_the_key() -> None:
    keys = [
        key(Inputs()),
        key(Inputs(seed=1)),
        key(Inputs(inner=Inner(rate=0.2))),
        key(Inputs(), version=2),
        key(Inputs(), parents={"tokens": "abc"}),
        key(Inputs(), parents={"other": "abc"}),
    ]
    assert len(set(keys)) == len(keys)


def test_a_path_does_not_change_the_key() -> None:
    assert key(Inputs(path="/there")) == key(Inputs())


def make(folder: Path) -> Path:
    with publish(folder) as draft:
        (draft / "rows.bin").write_bytes(b"12345678")
        write_manifest(draft, {"stage": "train"})
    return folder


def test_a_published_folder_verifies(tmp_path: Path) -> None:
    assert verify(make(tmp_path / "artifact"))["stage"] == "train"


def test_a_failing_block_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with publish(tmp_path / "artifact") as draft:
            (draft / "half").write_text("x")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_the_second_writer_uses_the_first_ones_result(tmp_path: Path) -> None:
    final = tmp_path / "artifact"
    with publish(final) as slow:
        (slow / "who").write_text("slow")
        with publish(final) as quick:
            (quick / "who").write_text("quick")
    assert (final / "who").read_text() == "quick"
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "rows.bin").write_bytes(b"1234"), "4 bytes"),
        (lambda folder: (folder / "rows.bin").write_bytes(b"1234567X"), "altered"),
        (lambda folder: (folder / "rows.bin").unlink(), "missing"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "not readable"),
        (lambda folder: (folder / "manifest.json").unlink(), "no manifest"),
        (lambda folder: (folder / "manifest.json").write_text(json.dumps({"version": 99})), "version 99"),
    ],
)
def test_damage_is_refused_with_the_way_out(tmp_path: Path, damage, message: str) -> None:
    folder = make(tmp_path / "artifact")
    damage(folder)
    with pytest.raises(DamagedArtifact, match=message) as error:
        verify(folder)
    assert f"rm -r {folder}" in str(error.value)


def test_every_flipped_byte_of_a_manifest_is_noticed(tmp_path: Path) -> None:
    folder = make(tmp_path / "artifact")
    path = folder / "manifest.json"
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(DamagedArtifact):
            read_manifest(folder)
    path.write_bytes(whole)
    assert read_manifest(folder)["version"] == 2


def test_a_manifest_written_from_another_has_its_own_hash_and_version(tmp_path: Path) -> None:
    folder = make(tmp_path / "artifact")
    copied = read_manifest(folder) | {"version": 1, "stage": "altered"}
    assert write_manifest(folder, copied)["stage"] == "altered"
    assert verify(folder)["version"] == 2


def test_a_manifest_from_before_it_had_a_hash_is_read(tmp_path: Path) -> None:
    folder = make(tmp_path / "artifact")
    record = json.loads((folder / "manifest.json").read_bytes())
    del record["manifest_sha256"]
    (folder / "manifest.json").write_text(json.dumps({**record, "version": 1}))
    assert verify(folder)["version"] == 1


@pytest.mark.parametrize(("mask", "rights"), [(0o027, 0o640), (0o002, 0o664), (0o077, 0o600)])
def test_files_of_an_artifact_follow_the_umask(tmp_path: Path, mask: int, rights: int) -> None:
    """safetensors writes 0600 whatever the umask, and a group could not read its own store."""
    before = os.umask(mask)
    try:
        with publish(tmp_path / "artifact") as draft:
            save_file({"x": torch.zeros(3)}, draft / "model.safetensors")
            (draft / "program.sh").touch(0o700)
            write_manifest(draft, {"stage": "x"})
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "artifact").iterdir()}
    assert modes["model.safetensors"] == modes["manifest.json"] == rights
    assert modes["program.sh"] & 0o700 == 0o700


@pytest.fixture(params=[errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system whose flock answers with one of these errors."""
    refuse(monkeypatch, request.param)


def refuse(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def flock(*_args: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    artifacts._tell.cache_clear()


def test_a_second_holder_is_kept_out_until_the_first_closes(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("a") as first, (tmp_path / "lock").open("a") as second:
        assert artifacts.lock(first, wait=False)
        assert not artifacts.lock(second, wait=False)
        first.close()
        assert artifacts.lock(second, wait=True)


def test_without_locks_one_line_says_so_and_work_goes_on(
    tmp_path: Path, no_locks: None, capsys: pytest.CaptureFixture[str]
) -> None:
    for wait in (False, True):
        with (tmp_path / "lock").open("a") as handle:
            assert artifacts.lock(handle, wait=wait)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: the store's file system has no file locks (")
    assert "two commands at the same time may do the same step" in line


def test_another_failure_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, errno.EIO)
    with (tmp_path / "lock").open("a") as handle, pytest.raises(OSError, match="Input/output"):
        artifacts.lock(handle, wait=True)


def test_a_store_without_locks_is_worked_in(tmp_path: Path, no_locks: None) -> None:
    from crossdiff.dispatch.local import _sole_writer
    from crossdiff.dispatch.register import Register

    with Register(tmp_path).locked(), _sole_writer(tmp_path / ".key.lock", "harvest m"):
        pass
    assert not (tmp_path / ".key.lock").exists()


def test_artifacts_without_a_manifest_are_left_out_of_provenance(tmp_path: Path) -> None:
    assert provenance({"train_pt_it": tmp_path}) == []
