"""Artifacts: keys, drafts that one rename publishes, manifests, provenance, verification, locks."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from crossdiff.core.files import file_sha256, follow_umask
from crossdiff.io import environment
from crossdiff.io.tables import write_text
from crossdiff.settings import Settings

MANIFEST = "manifest.json"
MANIFEST_VERSION = 2
READABLE_VERSIONS = (1, 2)
"""Version 1 has no hash of its content."""
_NO_HASH = "0" * 64
_OWN_HASH = re.compile(rb'"manifest_sha256": "([0-9a-f]{64})"')


class DamagedArtifact(ValueError):
    """A file of a finished artifact is missing, or differs from its recorded hash."""


def artifact_key(stage: str, version: int, inputs: Settings, parents: Mapping[str, str]) -> str:
    """16 hex digits of the sha256 over all that can change the result (docs/architecture.md, Steps)."""
    payload = json.dumps([stage, version, inputs.identity(), dict(parents)], sort_keys=True)
    return hashlib.sha256(payload.encode()).hexdigest()[:16]


@contextmanager
def publish(final: Path, *, draft: Path | None = None) -> Iterator[Path]:
    """Yield a draft folder and rename it to `final` only if the block succeeds.

    A second writer of the same folder discards its draft. After a failure a given `draft` is kept (stages
    that can continue), an anonymous one removed.
    """
    keep = draft is not None
    folder = draft or final.with_name(f".{final.name}-{uuid4().hex[:8]}")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    except BaseException:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    if final.exists():
        shutil.rmtree(folder)
        return
    try:
        folder.rename(final)
    except OSError:
        if not final.exists():
            raise
        shutil.rmtree(folder)


def write_manifest(
    folder: Path, content: Mapping[str, Any], *, hashes: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Record `content`, the software, and size and sha256 of every file in `folder`; returns the record.

    `hashes`: known sha256 by path inside `folder`; these files are not read.
    """
    known = hashes or {}
    names = {str(path.relative_to(folder)): path for path in _files(folder)}
    for path in names.values():
        follow_umask(path)
    files = {
        name: {"bytes": path.stat().st_size, "sha256": known.get(name) or file_sha256(path)}
        for name, path in names.items()
    }
    record = {
        **content,
        "software": environment.software(),
        "commit": environment.git_commit(),
        "files": files,
    }
    seal(record, folder)
    return record


def seal(record: Mapping[str, Any], folder: Path) -> None:
    """Write a manifest that records the sha256 of its bytes (with zeros for the hash).

    Version and hash in `record` are replaced.
    """
    head = {"version": MANIFEST_VERSION, "manifest_sha256": _NO_HASH}
    text = json.dumps({**head, **record, **head}, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    write_text(text.replace(_NO_HASH, digest, 1), folder / MANIFEST)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished artifact; `DamagedArtifact` where it cannot be read."""
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
        manifest = json.loads(data)
    except FileNotFoundError:
        raise DamagedArtifact(f"{folder} has no {MANIFEST}; {rebuild_hint(folder)}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DamagedArtifact(f"{path} is not readable JSON ({error}); {rebuild_hint(folder)}") from None
    version = manifest.get("version") if isinstance(manifest, dict) else None
    if version not in READABLE_VERSIONS:
        raise DamagedArtifact(
            f"{path} has manifest version {version!r}, this crossdiff reads "
            f"{' and '.join(map(str, READABLE_VERSIONS))}; {rebuild_hint(folder)}"
        )
    if not _is_unaltered(data, has_hash=version > 1):
        raise DamagedArtifact(
            f"{path} was altered: its sha256 differs from the one in it; {rebuild_hint(folder)}"
        )
    return manifest


def _is_unaltered(data: bytes, *, has_hash: bool) -> bool:
    """Whether a manifest's bytes, with zeros for the hash, have its hash (or, before version 2, none)."""
    recorded = _OWN_HASH.search(data)
    if recorded is None:
        return not has_hash
    blank = data[: recorded.start(1)] + _NO_HASH.encode() + data[recorded.end(1) :]
    return hashlib.sha256(blank).hexdigest() == recorded.group(1).decode()


def verify(folder: Path, *, hashes: bool = True) -> dict[str, Any]:
    """The manifest; `DamagedArtifact` where a file differs in size or, with `hashes`, in sha256."""
    manifest = read_manifest(folder)
    for name, recorded in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise DamagedArtifact(f"{path} is missing; {rebuild_hint(folder)}")
        size = path.stat().st_size
        if size != recorded["bytes"]:
            raise DamagedArtifact(
                f"{path} has {size:,} bytes, its manifest says {recorded['bytes']:,}; {rebuild_hint(folder)}"
            )
        if hashes and file_sha256(path) != recorded["sha256"]:
            raise DamagedArtifact(
                f"{path} was altered: its sha256 differs from the manifest's; {rebuild_hint(folder)}"
            )
    return manifest


def rebuild_hint(folder: Path) -> str:
    """The command that rebuilds a damaged artifact."""
    return f"remove it and run the same command again: rm -r {folder}"


def _files(folder: Path) -> list[Path]:
    return sorted(
        Path(root) / name for root, _, names in os.walk(folder) for name in names if name != MANIFEST
    )


NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)
"""Errors of flock on Lustre without `-o flock`, NFS without lockd, and some FUSE file systems."""


def lock(handle: IO[str], *, wait: bool) -> bool:
    """Lock an open file for this process; False, without `wait`, while another process has the lock.

    On a file system without locks: True, with one warning per process, so processes are not kept apart.
    Any other failure raises its OSError.
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
    """Warn once per process."""
    print(
        f"warning: the store's file system has no file locks ({reason}), so two commands at the same time "
        "may do the same step; start one after the other, or mount it with flock",
        file=sys.stderr,
        flush=True,
    )


def provenance(parents: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Manifests of the parents and of every ancestor in the same store, parents first, one per key.

    An artifact lies in `<store>/<stage>/<key>`, and keys are unique over all stages.
    """
    steps_by_key: dict[str, dict[str, Any]] = {}
    waiting = [folder.resolve() for folder in parents.values()]
    while waiting:
        folder = waiting.pop()
        if folder.name in steps_by_key or not (folder / MANIFEST).is_file():
            continue
        manifest = steps_by_key[folder.name] = read_manifest(folder)
        for key in manifest.get("parents", {}).values():
            waiting += folder.parent.parent.glob(f"*/{key}")

    @cache
    def depth(key: str) -> int:
        above = steps_by_key[key].get("parents", {}).values()
        return max((1 + depth(parent) for parent in above if parent in steps_by_key), default=0)

    def place(key: str) -> tuple[int, str, str]:
        return depth(key), steps_by_key[key].get("stage", ""), steps_by_key[key].get("label", "")

    return [steps_by_key[key] for key in sorted(steps_by_key, key=place)]
