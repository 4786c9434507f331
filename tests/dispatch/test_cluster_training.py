"""On the one-machine SLURM: training that is preempted, requeued and killed ends with the same bytes."""

import hashlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster_jobs import log_of, settle, worker

from crossdiff.command_settings import SlurmDispatch
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.sparsity import BatchTopK
from crossdiff.dispatch.loggers import NoTracker
from crossdiff.dispatch.slurm import Submission, submit
from crossdiff.io.artifacts import write_manifest
from crossdiff.pipeline.steps import Step
from crossdiff.settings import Runtime
from crossdiff.stages.train import TrainInputs
from crossdiff.training.settings import TrainingSettings
from tests import scaling_artifacts

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(900)]
N_STEPS = 30_000
"""Half a minute on a fast machine: after a requeue SLURM leaves a job 5 to 7 s in which it must not end."""
STARTED = "Starting with JobEnvironment"


def train_step(store: Path) -> Step:
    """A train step whose parents are finished: random activations of 60 documents."""
    made = scaling_artifacts.build(store.parent / f"{store.name}_made")
    steps = {}
    for role in ("tokens", "harvest_base", "harvest_tuned"):
        step = Step(role.split("_", maxsplit=1)[0], role, scaling_artifacts.Given(name=role))
        folder = step.folder(store)
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(made.parents[role], folder)
        write_manifest(folder, {"stage": step.stage, "seconds": 0.0, "counts": {}})
        steps[role] = step
    inputs = TrainInputs(
        layer=scaling_artifacts.LAYER,
        dictionary=DictionarySettings(n_latents=64),
        sparsity=BatchTopK(k=4),
        training=TrainingSettings(
            n_steps=N_STEPS, batch_size=64, warmup_steps=10, checkpoint_every=100, log_every=20,
            validate_every=500, threshold_batches=4, dead_after_tokens=20_000,
        ),
    )  # fmt: skip
    return Step("train", "pt_it", inputs, steps)


def asked(store: Path, step: Step) -> Submission:
    setup = ("export OMP_NUM_THREADS=1",)
    dispatch = SlurmDispatch(setup=setup, cpus=1, memory_gb=1, hours=0.5)
    runtime = Runtime(store=store, device="cpu", progress=False)
    return Submission([*step.parents.values(), step], [], runtime, dispatch, NoTracker())


def wait_for_start(store: Path, step: Step, start: int, *, seconds: float = 200) -> float:
    """Until the job's log says that it started for the nth time; the time at which that was seen."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if log_of(store, step).count(STARTED) >= start:
            return time.time()
        time.sleep(0.1)
    pytest.fail(f"start {start} was not seen within {seconds} s:\n{log_of(store, step)}")


def wait_for_row(store: Path, step: Step, least: int, *, since: float = 0.0, seconds: float = 400) -> None:
    """Until metrics.csv of the draft, written after `since`, has a row of at least that optimizer step."""
    path = store / "train" / f".{step.key}.draft" / "metrics.csv"
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        lines = path.read_text().splitlines() if path.is_file() else []
        if len(lines) > 1 and int(lines[-1].split(",")[0]) >= least and path.stat().st_mtime >= since:
            return
        time.sleep(0.1)
    pytest.fail(f"step {least} was not reached within {seconds} s:\n{path}")


def bytes_of(store: Path, step: Step) -> dict[str, str]:
    """Hash of every file that must not depend on interruptions."""
    folder = step.folder(store)
    files = (folder / "crosscoder").rglob("*.safetensors")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def preempt(job: str) -> None:
    subprocess.run(["scancel", "--signal=USR2", job], check=True)


def requeue(job: str) -> None:
    subprocess.run(["scontrol", "requeue", job], check=True)


def test_three_interruptions_leave_the_crosscoder_as_it_is(tmp_path: Path, cluster_only: None) -> None:
    calm, disturbed = tmp_path / "calm", tmp_path / "disturbed"
    step, same = train_step(calm), train_step(disturbed)
    assert step.key == same.key
    submit(asked(calm, step))
    submitted = submit(asked(disturbed, same))
    ((_, job),) = submitted.new
    interruptions: tuple[Callable[[str], None], ...] = (preempt, requeue)
    before = 0
    for least, interrupt in zip((600, 1500), interruptions, strict=True):
        before_now = worker(job, but=before)
        wait_for_row(disturbed, same, least)
        interrupt(job)
        before = before_now
    killed = worker(job, but=before)
    # the second run may have passed the row before it stopped
    wait_for_row(disturbed, same, 2500, since=wait_for_start(disturbed, same, 3))
    os.kill(killed, signal.SIGKILL)
    assert settle(asked(disturbed, same))[same.name] == "failed"
    log = log_of(disturbed, same)
    assert "training stopped by SIGUSR2" in log
    assert log.count(STARTED) == 3
    submit(asked(disturbed, same))
    assert settle(asked(disturbed, same))[same.name] == "finished"
    assert settle(asked(calm, step))[step.name] == "finished"
    assert bytes_of(calm, step) == bytes_of(disturbed, same)
    assert bytes_of(calm, step)


def test_a_time_limit_requeues_training_until_it_is_done(tmp_path: Path, cluster_only: None) -> None:
    store = tmp_path / "store"
    step = train_step(store)
    inputs = step.inputs.model_copy(
        update={"training": step.inputs.training.model_copy(update={"n_steps": 1_000_000})}  # type: ignore[attr-defined]
    )
    long = Step("train", "pt_it", inputs, step.parents)
    limited = asked(store, long)
    dispatch = limited.dispatch.model_copy(update={"hours": 1 / 60, "signal_seconds": 20})
    limited = Submission(limited.steps, [], limited.runtime, dispatch, NoTracker())
    ((_, job),) = submit(limited).new
    first = worker(job)
    wait_for_row(store, long, 200)
    second = worker(job, but=first, seconds=300)
    assert second != first
    assert "training stopped by SIGUSR2; saved at step" in log_of(store, long)
    subprocess.run(["scancel", job], check=True)
    assert settle(limited)[long.name] == "cancelled"
