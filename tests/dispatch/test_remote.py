"""What a job does on its node, without a cluster."""

import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest

from crossdiff.dispatch.local import run_steps
from crossdiff.dispatch.loggers import NoTracker
from crossdiff.dispatch.remote import RemoteJob
from crossdiff.dispatch.store import draft_folder
from crossdiff.pipeline.steps import Job, Step
from crossdiff.settings import Runtime, Settings
from crossdiff.stages import harvest
from crossdiff.stages.match import MatchInputs
from crossdiff.stages.protocol import Stage, Together
from crossdiff.stages.scale import ScaleInputs
from tests.harvest_process import pipeline_steps
from tests.model_folders import save_model
from tests.stages.test_harvest import write_corpus

ENDS = """
import atexit, os, signal
from crossdiff.dispatch.remote import ignore_signals

class Last:
    def __del__(self, kill=os.kill, process=os.getpid(), number=signal.SIGUSR2):
        kill(process, number)
        print("taken down")

signal.signal(signal.SIGUSR2, lambda *_: None)
last = Last()
"""


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100)


def test_a_signal_after_the_work_is_done_does_not_end_the_process() -> None:
    assert run(ENDS).returncode == -signal.SIGUSR2
    done = run(ENDS + "atexit.register(ignore_signals)")
    assert (done.returncode, done.stdout) == (0, "taken down\n"), done.stderr


def test_a_job_that_only_merges_does_not_harvest_what_the_tasks_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = pipeline_steps(save_model(tmp_path / "model", "llama"), write_corpus(tmp_path / "c.jsonl", 60))
    runtime = Runtime(store=tmp_path / "store", progress=False)
    run_steps(steps[:1], runtime)
    job = Job((steps[1],))
    draft = draft_folder(job, runtime.store)
    draft.mkdir(parents=True)
    parents = {"tokens": steps[0].folder(runtime.store)}
    assert harvest.run_shards(job.inputs, parents, draft, runtime) > 1  # type: ignore[arg-type]
    (draft / "progress" / "00001.json").rename(tmp_path / "receipt")
    merge = RemoteJob(job, runtime=runtime, n_gpus=0, tracker=NoTracker(), merges_only=True)
    with pytest.raises(ValueError, match=r"left 1 shards \(shard_00001.safetensors\).*action=retry"):
        merge()
    (tmp_path / "receipt").rename(draft / "progress" / "00001.json")
    assert merge() == merge() == [steps[1].key]
    assert "n_shards_harvested 0" in capsys.readouterr().out


class Given(Settings):
    text: str


def members(name: str, module: types.ModuleType) -> list[Step]:
    """Two steps that are made together, of which `bad` is refused, and a step on each."""

    def make(inputs, parents, drafts, runtime):
        return [ValueError("it diverged") if each.text == "bad" else {} for each in inputs]

    module.STAGE = Stage(  # type: ignore[attr-defined]
        name, version=1, run=lambda *given: {}, reads=(), writes="",
        together=Together(lambda inputs: "all", lambda inputs: 2, make),
    )  # fmt: skip
    return [Step(name, text, Given(text=text)) for text in ("good", "bad")]


def test_a_refused_member_leaves_what_stands_on_the_others_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = types.ModuleType("crossdiff.stages.train")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    good, bad = members("train", module)
    runtime = Runtime(store=tmp_path / "store", progress=False)
    ended = RemoteJob(Job((good, bad)), runtime=runtime, n_gpus=0, tracker=NoTracker())
    ended()  # ends well, so that SLURM starts the jobs that stand on it
    told = capsys.readouterr().err
    assert "train bad was refused: it diverged" in told
    assert (good.is_finished(runtime.store), bad.is_finished(runtime.store)) == (True, False)
    after = Step("train", "after", Given(text="after"), {"train": bad})
    with pytest.raises(ValueError, match="train bad is not finished in store="):
        RemoteJob(Job((after,)), runtime=runtime, n_gpus=0, tracker=NoTracker())()


@pytest.mark.parametrize(("n_gpus", "n_matching"), [(0, 1), (1, 1), (2, 2), (8, 4)])
def test_matching_takes_the_gpus_of_its_job_and_scaling_what_is_asked_for(
    n_gpus: int, n_matching: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its job of one process has cpus and memory for."""
    seen: list[int] = []
    monkeypatch.setattr(RemoteJob, "_begin", lambda self: "cpu")
    monkeypatch.setattr(RemoteJob, "_outcomes", lambda self, runtime: seen.append(runtime.n_devices) or [])
    steps = (
        Step("match", "", MatchInputs(pairs=("a", "b"), layer=1)),
        Step("scale", "", ScaleInputs(layer=1)),
    )
    for step in steps:
        RemoteJob(Job((step,)), runtime=Runtime(n_devices=4), n_gpus=n_gpus, tracker=NoTracker())()
    assert seen == [n_matching, 4]
