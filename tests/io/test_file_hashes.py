"""A large file is hashed once, over several commands, and again when it changes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from crossdiff.io import file_hashes

COMMAND = """
import sys
from crossdiff.data.corpus import files_hash
from crossdiff.io import file_hashes
from crossdiff.models.pair import ModelSettings, fingerprint
file_hashes.REMEMBERED_BYTES, file_hashes.SETTLED_S = 1000, -1.0
plain, seen = file_hashes.files.file_sha256, []
file_hashes.files.file_sha256 = lambda path: (seen.append(path), plain(path))[1]
print(fingerprint(ModelSettings(name="m", path=sys.argv[1])), files_hash(sys.argv[2:]))
print(*[path.rpartition("/")[2] for path in seen])
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where hashes are remembered in this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(file_hashes, "REMEMBERED_BYTES", 1000)
    return tmp_path / "cache" / "crossdiff" / "sha256"


def aged(path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a file that is taken for an old one; returns its sha256."""
    monkeypatch.setattr(file_hashes, "SETTLED_S", -1.0)
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def test_a_second_command_reads_no_weights_and_no_corpus(tmp_path: Path, cache: Path) -> None:
    model, corpus = tmp_path / "model", tmp_path / "corpus.txt"
    model.mkdir()
    (model / "config.json").write_text("{}")
    for path in (model / "model.safetensors", corpus):
        path.write_bytes(os.urandom(2000))

    def told() -> list[str]:
        command = [sys.executable, "-c", COMMAND, str(model), str(corpus)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

    first, second = told(), told()
    assert sorted(first[1].split()) == ["config.json", "corpus.txt", "model.safetensors"]
    assert second == [first[0], "config.json"]
    corpus.write_bytes(os.urandom(2000))
    third = told()
    assert sorted(third[1].split()) == ["config.json", "corpus.txt"]
    assert third[0].split()[0] == first[0].split()[0]
    assert third[0] != first[0]


def test_a_changed_file_is_hashed_anew_even_with_its_size_and_time_restored(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights"
    before = aged(path, b"a" * 2000, monkeypatch)
    status = path.stat()
    assert file_hashes.file_sha256(path) == before
    after = aged(path, b"b" * 2000, monkeypatch)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file_hashes.file_sha256(path) == after != before
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"identity": 3}', b"\xff"])
def test_a_damaged_record_is_ignored(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes
) -> None:
    expected = aged(tmp_path / "weights", b"a" * 2000, monkeypatch)
    assert file_hashes.file_sha256(tmp_path / "weights") == expected
    (record,) = cache.iterdir()
    record.write_bytes(damage)
    file_hashes._known.cache_clear()
    assert file_hashes.file_sha256(tmp_path / "weights") == expected


def test_a_small_file_a_fresh_file_and_a_cache_that_cannot_be_written_leave_nothing(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small").write_bytes(b"a" * 999)
    (tmp_path / "fresh").write_bytes(b"a" * 2000)
    for name in ("small", "fresh"):
        file_hashes.file_sha256(tmp_path / name)
    assert not cache.exists()
    (tmp_path / "cache").write_text("a file, not a folder")
    expected = aged(tmp_path / "old", b"c" * 2000, monkeypatch)
    assert file_hashes.file_sha256(tmp_path / "old") == expected


def test_a_long_reading_is_told_of_once(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(file_hashes, "TOLD_BYTES", 2000)
    path = tmp_path / "model.safetensors"
    known = aged(path, os.urandom(3000), monkeypatch)
    for _ in range(2):
        assert file_hashes.file_sha256(path) == known
    assert capsys.readouterr().err.count(f"reading {path} once for its hash") == 1
