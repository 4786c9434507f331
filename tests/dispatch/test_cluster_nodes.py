"""On the one-machine SLURM: two nodes end with the bytes of one node that has as many processes."""

import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from cluster_jobs import log_of, settle

from crossdiff.dispatch.slurm import Submission, submit
from crossdiff.pipeline.steps import Step
from crossdiff.stages.protocol import Resources
from crossdiff.stages.scale import ScaleInputs
from tests import scaling_artifacts
from tests.dispatch.test_cluster_training import STARTED, asked, bytes_of, train_step, wait_for_row

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(900)]


def plan(store: Path, *, n_steps: int) -> list[Step]:
    """A training and a scaling, each of two processes; all steps, parents first."""
    alone = train_step(store)
    training = alone.inputs.training.model_copy(update={"n_steps": n_steps, "devices": 2})  # type: ignore[attr-defined]
    train = replace(alone, inputs=alone.inputs.model_copy(update={"training": training}))
    scale = Step(
        "scale", "pt_it", ScaleInputs(layer=scaling_artifacts.LAYER), {**train.parents, "train": train}
    )
    return [*train.parents.values(), train, scale]


def on_nodes(store: Path, steps: list[Step], n_nodes: int) -> Submission:
    usual = asked(store, steps[3])
    stages = {"train": Resources(nodes=n_nodes), "scale": Resources(nodes=n_nodes)}
    dispatch = usual.dispatch.model_copy(update={"stages": stages, "devices": 2, "partition": "main"})
    runtime = usual.runtime.model_copy(update={"n_devices": 2})
    return Submission(steps, [], runtime, dispatch, usual.tracker)


def table(store: Path, scale: Step) -> bytes:
    return (scale.folder(store) / "latents.parquet").read_bytes()


def test_two_nodes_also_requeued_end_with_the_bytes_of_one(tmp_path: Path, cluster_only: None) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    n_steps = 1500
    steps, same = plan(one, n_steps=n_steps), plan(two, n_steps=n_steps)
    assert [step.key for step in steps] == [step.key for step in same]
    train, scale = same[-2:]
    submitted = submit(on_nodes(two, same, 2))
    job = {job.stage: number for job, number in submitted.new}["train"]
    wait_for_row(two, train, 300)
    subprocess.run(["scontrol", "requeue", job], check=True)
    assert set(settle(on_nodes(two, same, 2)).values()) == {"finished"}
    assert log_of(two, train).count(STARTED) == 2
    submit(on_nodes(one, steps, 1))
    assert set(settle(on_nodes(one, steps, 1)).values()) == {"finished"}
    assert bytes_of(one, steps[-2]) == bytes_of(two, train) != {}
    assert table(one, steps[-1]) == table(two, scale)


def test_a_process_lost_on_the_second_node_is_named(tmp_path: Path, cluster_only: None) -> None:
    store = tmp_path / "store"
    steps = plan(store, n_steps=1_000_000)[:-1]
    ((_, job),) = submit(on_nodes(store, steps, 2)).new
    wait_for_row(store, steps[-1], 200)
    os.kill(rank_of(job, node=1), signal.SIGKILL)
    assert settle(on_nodes(store, steps, 2))[steps[-1].name] == "failed"
    assert "node 2 of 2" in log_of(store, steps[-1])
    assert "was killed" in log_of(store, steps[-1])


def rank_of(job: str, *, node: int) -> int:
    """Process id of a rank that the task of this node has started."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        ours = (
            f"SLURM_JOB_ID={job}".encode() in environment and f"SLURM_NODEID={node}".encode() in environment
        )
        if ours and b"spawn_main" in command:
            return int(folder.name)
    pytest.fail(f"job {job} has no rank on node {node}")
