"""A harvest against a full disk and against other processes: nothing half, nothing twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from crossdiff.models.pair import ModelSettings
from tests.model_folders import save_model
from tests.stages.test_harvest import harvest_files, make_harvest, make_tokens

MOUNT = ["unshare", "--mount", "--map-root-user"]
FULL_DISK = """
import subprocess, sys
from pathlib import Path
disk, model, tokens = map(Path, sys.argv[1:])
mount = lambda *options: subprocess.run(["mount", *options], check=True)
mount("-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk))
from crossdiff.__main__ import user_message
from crossdiff.models.pair import ModelSettings
from tests.stages.test_harvest import harvest_files, make_harvest
settings = ModelSettings(name="m", path=str(model), dtype="float32")
try:
    make_harvest(disk / "h", settings, tokens)
except OSError as error:
    print(user_message(error))
print("finished", (disk / "h" / "layer_1" / "harvest.json").exists())
print("left over", [str(p) for p in (disk / "h").rglob("*.part")])
print("kept", len(list((disk / "h" / "progress").glob("*.json"))))
mount("-o", "remount,size=64m", str(disk))
figures = make_harvest(disk / "h", settings, tokens)
print("again", figures["n_shards"] - figures["n_shards_harvested"])
whole = harvest_files(Path(model).parent / "whole")
print("equal", harvest_files(disk / "h") == whole)
"""


def can_mount() -> bool:
    """Whether this machine lets us mount a small disk of our own."""
    command = [*MOUNT, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_a_disk_that_fills_up_amid_a_shard_is_one_message_and_the_same_command_goes_on(
    tmp_path: Path,
) -> None:
    if not can_mount():
        pytest.skip("this machine allows no mount namespace (unshare --mount --map-root-user)")
    model = ModelSettings(name="m", path=str(save_model(tmp_path / "model", "llama")), dtype="float32")
    tokens = make_tokens(tmp_path, model, n=160)
    make_harvest(tmp_path / "whole", model, tokens)
    (tmp_path / "disk").mkdir()
    command = [*MOUNT, sys.executable, "-c", FULL_DISK]
    done = subprocess.run(
        [*command, tmp_path / "disk", tmp_path / "model", tokens], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    message, finished, left_over, kept, again, equal = done.stdout.strip().splitlines()
    assert message.startswith("no space left on the device")
    assert (finished, left_over, equal) == ("finished False", "left over []", "equal True")
    assert int(kept.split()[-1]) == int(again.split()[-1]) > 0


SAME_KEY = """
import sys
from pathlib import Path
from crossdiff.data.settings import CacheSource
from crossdiff.dispatch.local import run_steps
from crossdiff.models.pair import ModelSettings
from crossdiff.pipeline.steps import Step
from crossdiff.settings import Runtime, Settings
from crossdiff.stages.harvest import HarvestInputs
from tests.stages.test_harvest import tokens_step
store, model, corpus = map(Path, sys.argv[1:])
settings = ModelSettings(name="m", path=str(model), dtype="float32")
inputs = HarvestInputs(
    model=settings, fingerprint="x", layers=(1,), source=CacheSource(batch_tokens=64, shard_tokens=60)
)
step = Step("harvest", "m", inputs, {"tokens": tokens_step(settings, corpus)})
made = run_steps([step.parents["tokens"], step], Runtime(store=store, progress=False))
print([outcome.state for outcome in made][-1])
"""


@pytest.mark.slow
def test_two_processes_that_harvest_one_key_at_once_make_it_once(tmp_path: Path) -> None:
    from tests.stages.test_harvest import write_corpus

    model, corpus = save_model(tmp_path / "model", "llama"), write_corpus(tmp_path / "corpus.jsonl", 300)
    command = [sys.executable, "-c", SAME_KEY, tmp_path / "store", model, corpus]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    states = sorted(process.communicate(timeout=300)[0].split()[-1] for process in both)
    assert states == ["done", "reused"]
    assert [path.name for path in (tmp_path / "store" / "harvest").iterdir() if path.name[0] != "."] != []
    assert not list((tmp_path / "store" / "harvest").glob(".*.draft"))
    make_harvest(
        tmp_path / "alone",
        ModelSettings(name="m", path=str(model), dtype="float32"),
        next(path for path in (tmp_path / "store" / "tokens").iterdir() if path.name[0] != "."),
        batch_tokens=64,
        shard_tokens=60,
    )
    (made,) = (path for path in (tmp_path / "store" / "harvest").iterdir() if path.name[0] != ".")
    shards = {name: data for name, data in harvest_files(made).items() if name.endswith(".safetensors")}
    alone = harvest_files(tmp_path / "alone")
    assert shards == {name: data for name, data in alone.items() if name.endswith(".safetensors")}
