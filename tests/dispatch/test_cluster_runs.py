"""On the one-machine SLURM, by the command line and with the real stages: a grid, and a disturbed run."""

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from cluster_jobs import release, worker

from experiments.bench import submit

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1200)]

TOY = (
    "organism=demo", "organism.d_model=32", "organism.d_mlp=64", "organism.n_layers=3", "organism.n_many=2",
    "organism.n_keep=1", "organism.pretraining.n_steps=20", "organism.tuning.n_steps=20",
    "organism.preference.n_steps=10", "organism.n_web_documents=150", "organism.n_chat_documents=150",
    "organism.n_rate_prompts=1", "corpus=toy", "dictionary=toy", "dictionary.n_latents=128",
    "sparsity=toy", "sparsity.k=8", "training=demo", "training.n_steps=300", "training.batch_size=256",
    "training.checkpoint_every=20", "selection.nu_error=0.7", "selection.nu_reconstruction=0.8",
    "selection.min_tokens=5", "selection.min_documents=2", "device=cpu", "progress=false",
)  # fmt: skip
SLURM = ("dispatch=slurm", "dispatch.profile=local")


def crossdiff(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line with `folder` as the working folder: store and results lie there."""
    folder.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *arguments, *TOY],
        cwd=folder, capture_output=True, text=True, timeout=900, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def manifests(store: Path) -> dict[str, dict]:
    return {path.parent.name: json.loads(path.read_text()) for path in store.glob("*/*/manifest.json")}


def documented_grid() -> list[str]:
    """Arguments of the command that docs/cluster.md offers for one machine."""
    page = (
        (ROOT / "src" / "crossdiff" / "docs" / "cluster.md").read_text().partition("Try it on one machine")[2]
    )
    block = page.split("```")[1].replace("\\\n", " ")
    (command,) = [line for line in block.splitlines() if line.startswith("python run.py")]
    return shlex.split(command)[2:]


def test_the_documented_two_by_two_grid_ends_in_four_reports(tmp_path: Path, cluster_only: None) -> None:
    grid = documented_grid()
    assert {"dispatch=slurm", "dispatch.wait=true"} < set(grid)
    done = crossdiff(tmp_path, *grid, "dispatch.poll_seconds=1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("report: ") == 4
    for name in ("toy_pt_it_1", "toy_pt_it_2", "toy_pt_simpo_1", "toy_pt_simpo_2"):
        results = tmp_path / "results" / name
        assert (results / "report.html").stat().st_size > 100_000
        assert len(pd.read_parquet(next(results.glob("latents.*.parquet")))) == 128
    logs = "\n".join(path.read_text() for path in (tmp_path / "store" / ".submitit").rglob("*.out"))
    passes = [line for line in logs.splitlines() if line.startswith("harvest ") and line.endswith(" ...")]
    assert sorted(passes) == [f"harvest {model} (layers 1,2) ..." for model in ("it", "pt", "simpo")]
    steps = manifests(tmp_path / "store")
    assert sum(step["stage"] == "harvest" for step in steps.values()) == 6
    for step in steps.values():
        assert all(steps[key]["finished"] <= step["finished"] for key in step["parents"].values())
    again = crossdiff(tmp_path, *grid)
    assert f"0 jobs submitted for 0 steps; 0 steps were queued, {len(steps)} finished" in again.stdout


def requeue(job: str) -> None:
    subprocess.run(["scontrol", "requeue", job], check=True, timeout=60)


def time_limit(job: str) -> None:
    subprocess.run(["scancel", "--signal=USR2", job], check=True, timeout=60)


def kill_worker(job: str) -> None:
    os.kill(worker(job, seconds=20), signal.SIGKILL)


def running_jobs() -> list[str]:
    command = ["squeue", "-h", "-t", "R", "-o", "%i"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()


def disturb(interrupt: Callable[[str], None], *, draw: random.Random, seconds: float = 120) -> str:
    """After a random while, interrupt a random running job; returns which."""
    time.sleep(draw.uniform(1, 8))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        release()
        jobs = running_jobs()
        if jobs:
            job = draw.choice(jobs)
            time.sleep(draw.uniform(0, 3))
            if job in running_jobs():
                interrupt(job)
                return job
        time.sleep(0.2)
    pytest.fail(f"nothing ran for {seconds} s")


def wait_until_idle(*, seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        release()
        command = ["squeue", "-h", "-o", "%i"]
        if not subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.strip():
            return
        time.sleep(1)
    pytest.fail(f"jobs are still queued after {seconds} s")


def test_three_disturbances_at_random_moments_change_no_byte(tmp_path: Path, cluster_only: None) -> None:
    """A requeue, a time limit's signal and a `kill -9`, in random order, of whatever runs at the moment."""
    seed = int(os.environ.get("CROSSDIFF_DISTURB_SEED", time.time_ns() % 100_000))
    draw = random.Random(seed)
    asked = ("comparison=toy_it_vs_simpo", "comparison.n_seeds=1", "layer=2", "results_dir=results")
    assert crossdiff(tmp_path / "disturbed", *asked, *SLURM).returncode == 0
    told = []
    for interrupt in draw.sample([requeue, time_limit, kill_worker], 3):
        told.append(f"{interrupt.__name__} of job {disturb(interrupt, draw=draw)}")
        if interrupt is kill_worker:
            wait_until_idle()
            crossdiff(tmp_path / "disturbed", *asked, *SLURM, "action=retry")
    wait_until_idle()
    last = crossdiff(tmp_path / "disturbed", *asked, *SLURM, "action=status")
    print(f"CROSSDIFF_DISTURB_SEED={seed}: {', '.join(told)}\n{last.stdout}")
    assert len(told) == 3
    results = tmp_path / "disturbed" / "results"
    assert (results / "report.html").is_file(), last.stdout
    calm = crossdiff(tmp_path / "calm", *asked)
    assert calm.returncode == 0, calm.stderr
    names = ("deltas.csv", "latents.toy_pt_it.parquet", "latents.toy_pt_simpo.parquet")
    for name in names:
        assert (results / name).read_bytes() == (tmp_path / "calm" / "results" / name).read_bytes(), name
    assert pd.read_csv(results / "deltas.csv")["count_treatment"].sum() > 0


@pytest.mark.usefixtures("cluster_only")
def test_the_submission_benchmark_holds_every_job_until_it_is_cancelled() -> None:
    found = submit.main(["grid_points=4", "scheduler=real"])
    assert found["n_jobs"] == found["n_jobs_cancelled"] > 20
    assert found["n_jobs_again"] == 0
