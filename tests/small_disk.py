"""A comparison on a small disk that fills up in every step, as a process of its own (test_full_disk.py)."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from crossdiff import __main__ as command_line
from crossdiff.dispatch import local
from crossdiff.pipeline.steps import Job

draft_folder = local.draft_folder


def run(store: Path, arguments: list[str]) -> int:
    """Exit code of the command with this store."""
    sys.argv = ["run.py", *arguments, f"store={store}", f"results_dir={store.parent}/results"]
    return command_line.guarded(command_line._run)


def sizes(store: Path) -> dict[str, int]:
    """Bytes of the smallest artifact of every stage."""
    found: dict[str, int] = {}
    for manifest in store.glob("*/*/manifest.json"):
        size = sum(path.stat().st_size for path in manifest.parent.iterdir())
        stage = manifest.parent.parent.name
        found[stage] = min(size, found.get(stage, size))
    return found


def contents(store: Path) -> dict[str, dict]:
    """Finished artifact -> its files with their hashes."""
    return {
        str(manifest.parent.relative_to(store)): json.loads(manifest.read_text())["files"]
        for manifest in store.glob("*/*/manifest.json")
    }


def fill(disk: Path, *, room: int) -> None:
    """Leave `room` bytes of the disk."""
    free = os.statvfs(disk)
    with (disk / "ballast").open("wb") as ballast:
        ballast.truncate(max(free.f_bavail * free.f_frsize - room, 0))
        os.posix_fallocate(ballast.fileno(), 0, os.fstat(ballast.fileno()).st_size)


def main(disk: Path, whole: Path, arguments: list[str]) -> None:
    """Print stage, room, exit code per full disk, and the code of the last run, which has room."""
    assert run(whole, arguments) == 0
    rooms = {stage: [0, size // 2] for stage, size in sizes(whole).items()}
    now: list[object] = []

    def filled(job: Job, store: Path) -> Path:
        if rooms.get(job.stage):
            now[:] = [job.stage, rooms[job.stage].pop(0)]
            fill(disk, room=int(now[1]))  # type: ignore[call-overload]
        return draft_folder(job, store)

    local.draft_folder = filled
    while any(rooms.values()):
        code = run(disk / "store", arguments)
        print("FULL", *now, code, flush=True)
        (disk / "ballast").unlink(missing_ok=True)
        if not code:
            break
    local.draft_folder = draft_folder
    code, expected, made = run(disk / "store", arguments), contents(whole), contents(disk / "store")
    different = sorted(
        f"{artifact}/{name}"
        for artifact, files in expected.items()
        for name, entry in files.items()
        if made.get(artifact, {}).get(name) != entry
    )
    print("ROOM", code, len(expected), *different)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
