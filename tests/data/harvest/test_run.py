"""A harvest on a full disk and beside another process of the same key: nothing half, nothing twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from crossdiff.dispatch.local import run_steps
from crossdiff.dispatch.store import draft_folder
from crossdiff.pipeline.steps import Job, Step
from crossdiff.settings import Runtime
from tests.harvest_process import pipeline_steps
from tests.model_folders import save_model
from tests.stages.test_harvest import harvest_files, write_corpus

ROOT = Path(__file__).resolve().parents[3]
COMMAND = [sys.executable, "-m", "tests.harvest_process"]
NAMESPACES = (["unshare", "--mount", "--map-root-user"], ["unshare", "--mount"])
"""A mount namespace of its own, so that the small disk is gone with the process; the second needs root."""
FULL_THEN_FREED = """
disk=$1; shift
mount -t tmpfs -o size=64m tmpfs "$disk"
"$@" --tokens-only || exit 90
used=$(df --output=used -k "$disk" | tail -1)
mount -o remount,size=$((used + 100))k "$disk"
"$@"; echo "first $?"
cp -r "$disk/harvest" "$disk.first"
mount -o remount,size=64m "$disk"
"$@"; echo "second $?"
cp -r "$disk/harvest" "$disk.second"
"""


@pytest.fixture
def source(tmp_path: Path) -> tuple[Path, Path]:
    """A model folder and a corpus."""
    return save_model(tmp_path / "model", "llama"), write_corpus(tmp_path / "corpus.jsonl", 300)


def undisturbed(store: Path, source: tuple[Path, Path]) -> Step:
    """The harvest step of these sources, computed by this process in a store of its own."""
    steps = pipeline_steps(*source)
    run_steps(steps, Runtime(store=store, progress=False))
    return steps[-1]


def rows_and_records(folder: Path) -> dict[str, bytes]:
    """Everything of an artifact but the manifest, which has times in it."""
    return {name: data for name, data in harvest_files(folder).items() if name != "manifest.json"}


def run(command: list[Any]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_a_disk_full_in_mid_shard_is_one_message_and_the_same_command_goes_on(
    tmp_path: Path, source: tuple[Path, Path]
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk]
    namespace = next((prefix for prefix in NAMESPACES if run([*prefix, *mount]).returncode == 0), None)
    if namespace is None:
        pytest.skip("this machine allows no mount in a namespace of its own (unshare --mount)")
    step = undisturbed(tmp_path / "whole", source)
    expected = rows_and_records(step.folder(tmp_path / "whole"))
    done = run([*namespace, "sh", "-c", FULL_THEN_FREED, "sh", disk, *COMMAND, disk, *source])
    lines = done.stdout.splitlines()
    assert ("first 2" in lines, "second 0" in lines) == (True, True), done.stderr
    assert "Traceback" not in done.stderr
    (message,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    draft = draft_folder(Job((step,)), disk)
    assert f"no space left on the device ({draft}/layer_1/shard_" in message
    assert "free some and run the same command again" in message

    stopped = tmp_path / "disk.first"
    assert not (stopped / step.key).exists()
    left = harvest_files(stopped / draft.name)
    shards = {name: data for name, data in left.items() if name.startswith("layer_1/")}
    assert 0 < len(shards) < len([name for name in expected if "/shard_" in name])
    assert shards.items() <= expected.items(), "a half shard was taken for a finished one"
    assert rows_and_records(tmp_path / "disk.second" / step.key) == expected


@pytest.mark.slow
def test_two_processes_that_harvest_one_key_at_once_make_it_once(
    tmp_path: Path, source: tuple[Path, Path]
) -> None:
    store = tmp_path / "store"
    command = [*COMMAND, str(store), *map(str, source), "--slowly"]
    both = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    told = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    lines = [[line for line in out.splitlines() if line.startswith("harvest m")] for out, _ in told]
    waited, worked = sorted(lines, key=lambda own: own[0] == "harvest m ...")
    assert waited[0] == "harvest m: another process is computing it; waiting for its result"
    assert waited[1].startswith("harvest m: finished earlier")
    assert worked[1].startswith("harvest m: n_tokens")
    step = undisturbed(tmp_path / "alone", source)
    home = store / "harvest"
    assert [path.name for path in home.iterdir()] == [step.key], "a draft or a lock is left"
    assert rows_and_records(step.folder(store)) == rows_and_records(step.folder(tmp_path / "alone"))
