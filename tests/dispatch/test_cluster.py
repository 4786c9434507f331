"""On the one-machine SLURM: a grid, a failing job, three interruptions, a store that nodes cannot see."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from cluster_jobs import handles, running, settle, worker
from fake_plan import FOLDER, chain, submission

from crossdiff.dispatch import register, status
from crossdiff.dispatch.graph import read_graph
from crossdiff.dispatch.slurm import submit
from crossdiff.pipeline.steps import Step

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]


def content(step: Step, store: Path) -> str:
    """Hash over every file of an artifact but its manifest."""
    files = sorted(
        path for path in step.folder(store).rglob("*") if path.is_file() and path.name != "manifest.json"
    )
    return hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in files)).hexdigest()


def test_a_two_by_two_grid_runs_in_order_with_one_forward_pass_per_model(
    tmp_path: Path, cluster: None, capfd: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    plans = [chain(pair, layer=layer) for pair in ("pt_it", "pt_simpo") for layer in (1, 2)]
    asked = submission(store, *plans, wait=True, poll_seconds=1)
    assert status.perform("run", asked) == 0
    assert sorted((store / "passes.txt").read_text().splitlines()) == [
        "it [1, 2]",
        "pt [1, 2]",
        "simpo [1, 2]",
    ]
    order = [
        line.split()[0] for line in (store / "starts.txt").read_text().splitlines() if "unit" not in line
    ]
    assert [order.index(stage) for stage in ("tokens", "train", "scale", "report")] == sorted(
        order.index(stage) for stage in ("tokens", "train", "scale", "report")
    )
    assert len(list((tmp_path / "results").glob("*/summary.json"))) == 4
    assert capfd.readouterr().out.count("report: ") == 4
    again = submit(asked)
    assert (again.new, again.jobs) == ([], {})


def test_the_tasks_of_a_harvest_array_share_its_shards(tmp_path: Path, cluster: None) -> None:
    plan = [*chain("pt_it", layer=1)[:2], *chain("pt_it", layer=2)[1:2]]
    asked = submission(tmp_path / "store", [*plan], harvest_tasks=2)
    submit(replace(asked, publications=[]))
    assert set(settle(asked).values()) == {"finished"}
    for step, layer in zip(plan[1:], (1, 2), strict=True):
        shards = sorted((step.folder(tmp_path / "store") / f"layer_{layer}").glob("shard_*"))
        assert len(shards) == 8
        assert {shard.read_text() for shard in shards} == {"0", "1"}


def test_a_failing_job_cancels_its_own_dependants_and_retry_finishes_it(
    tmp_path: Path, cluster: None, capfd: pytest.CaptureFixture[str]
) -> None:
    store, switch = tmp_path / "store", tmp_path / "broken"
    switch.touch()
    plans = [chain("pt_it", layer=1, fails_while=str(switch)), chain("pt_simpo", layer=1)]
    asked = submission(store, *plans, wait=True, poll_seconds=1)
    assert status.perform("run", asked) == 1
    states = settle(asked)
    assert [states[f"{stage} pt_it"] for stage in ("train", "scale", "report")] == [
        "failed",
        "cancelled",
        "cancelled",
    ]
    assert states["report pt_simpo"] == "finished"
    told = capfd.readouterr().err
    assert f"RuntimeError: {switch} is there" in told
    assert "report pt_it: cancelled, because train pt_it failed" in told
    switch.unlink()
    assert status.perform("retry", asked) == 0
    assert set(settle(asked).values()) == {"finished"}


def test_signals_that_meet_a_job_while_it_starts_do_not_end_it(tmp_path: Path, cluster: None) -> None:
    asked = submission(tmp_path / "store", chain("pt_it", layer=1)[:1])
    submit(asked)
    (node,) = read_graph(asked.steps, asked.runtime.store)
    assert node.entry is not None
    process = worker(node.entry.job)
    assert not handles(process, signal.SIGUSR2)
    for number in (signal.SIGTERM, signal.SIGUSR2):
        os.kill(process, number)
    assert settle(asked) == {"tokens toy": "finished"}
    assert "Traceback" not in node.entry.log.read_text()


def test_interrupted_three_ways_the_result_is_that_of_an_undisturbed_run(
    tmp_path: Path, cluster: None
) -> None:
    plan = chain("pt_it", layer=1, n_units=40, seconds=0.5)
    train = plan[3]
    undisturbed = submission(tmp_path / "calm" / "store", plan)
    asked = submission(tmp_path / "store", plan)
    submit(undisturbed)
    submit(asked)
    job = running(asked, train, units=2)
    subprocess.run(["scancel", "--signal=USR2", job], check=True)
    time.sleep(2)
    assert running(asked, train, units=5) == job
    before = worker(job)
    subprocess.run(["scontrol", "requeue", job], check=True)
    time.sleep(2)
    assert running(asked, train, units=9) == job
    os.kill(worker(job, but=before), signal.SIGKILL)
    assert settle(asked)["train pt_it"] == "failed"  # kill -9 is a failure, so it is not requeued
    status.perform("retry", asked)
    assert set(settle(asked).values()) == {"finished"}
    settle(undisturbed)
    written = [
        line
        for line in (tmp_path / "store" / "starts.txt").read_text().splitlines()
        if "train" in line and "unit" in line
    ]
    assert len(written) == len(set(written)) == 40
    for step in plan:
        assert content(step, asked.runtime.store) == content(step, undisturbed.runtime.store)


def test_a_job_evicted_by_a_stronger_partition_goes_on_at_the_unit_in_hand(
    tmp_path: Path, cluster: None
) -> None:
    plan = chain("pt_it", layer=1, n_units=40, seconds=0.5)
    asked = submission(tmp_path / "store", plan, partition="low")
    submit(asked)
    job = running(asked, plan[3], units=2)
    before = worker(job)
    evicts = [
        "sbatch",
        "-p",
        "high",
        "-N",
        "2",
        "--exclusive",
        "-t",
        "1",
        "-o",
        "/dev/null",
        "--wrap",
        "sleep 2",
    ]
    subprocess.run(evicts, check=True, timeout=60)
    assert worker(job, but=before) != before
    assert set(settle(asked).values()) == {"finished"}
    lines = (tmp_path / "store" / "starts.txt").read_text().splitlines()
    written = [line for line in lines if "train" in line and "unit" in line]
    assert len(written) == len(set(written)) == 40
    assert sum("train" in line and "unit" not in line for line in lines) == 2


def test_cancel_keeps_what_another_plan_waits_for(
    tmp_path: Path, cluster: None, capfd: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    plan, other = chain("pt_it", layer=1), chain("pt_simpo", layer=1)
    subprocess.run(["scontrol", "update", "PartitionName=main", "State=DOWN"], check=True)
    try:
        submit(submission(store, plan))
        submit(submission(store, other))
        status.perform("cancel", submission(store, plan))
        told = capfd.readouterr().out
        assert "kept tokens toy" in told
        assert "kept harvest pt" in told
        assert "cancelled harvest it" in told
        states = {
            node.step.inputs.text: node.state for node in read_graph(submission(store, other).steps, store)
        }  # type: ignore[attr-defined]
        assert set(states.values()) == {"waiting"}
    finally:
        subprocess.run(["scontrol", "update", "PartitionName=main", "State=UP"], check=True)
    assert set(settle(submission(store, other)).values()) == {"finished"}


HIDDEN = """
import sys
sys.path.insert(0, sys.argv[1])
import fake_stages; fake_stages.install()
from pathlib import Path
from fake_plan import chain, submission
from crossdiff.dispatch import status
asked = submission(Path(sys.argv[2]) / "store", chain("pt_it", layer=1), wait=True, poll_seconds=1)
sys.exit(status.perform("run", asked))
"""


def test_a_store_that_the_node_does_not_see_is_named(tmp_path: Path, cluster: None) -> None:
    hidden = tmp_path / "only_here"
    hidden.mkdir()
    inside = f'mount -t tmpfs none {hidden} && exec {sys.executable} -c "$0" {FOLDER} {hidden}'
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", inside, HIDDEN],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"cannot make a private mount here: {done.stderr.strip()}")
    assert done.returncode == 1
    assert "tokens toy: job" in done.stderr
    assert "the compute node does not see the store" in done.stderr
    assert "report pt_it: cancelled, because tokens toy failed" in done.stderr


def test_a_partition_that_refuses_is_named(tmp_path: Path, cluster: None) -> None:
    with pytest.raises(
        ValueError, match=r"sbatch refused tokens toy: .*Required partition not available.*partition=closed"
    ):
        submit(submission(tmp_path / "store", chain("pt_it", layer=1), partition="closed"))


def test_states_of_jobs_that_squeue_has_forgotten_come_from_sacct(cluster: None) -> None:
    assert register.job_states(["99999999"])["99999999"].phase == "gone"
