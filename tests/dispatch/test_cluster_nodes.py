"""On the one-machine SLURM: two nodes end with the bytes of one node that has as many processes."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from cluster_jobs import log_of, settle

from crossdiff.dispatch.slurm import Submission, submit
from crossdiff.pipeline.steps import Step
from crossdiff.stages.protocol import Resources
from crossdiff.stages.scale import ScaleInputs
from tests import scaling_artifacts
from tests.dispatch.test_cluster_training import STARTED, asked, bytes_of, requeue, train_step, wait_for_row

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(900)]


def plan(store: Path, *, n_steps: int = 300) -> list[Step]:
    """A training and a scaling of two processes, and a training whose latents are dealt to two, which takes
    long enough to be requeued; all steps, parents first.
    """
    alone = train_step(store)

    def train(label: str, **given: int) -> Step:
        training = alone.inputs.training.model_copy(update=given)  # type: ignore[attr-defined]
        return replace(alone, label=label, inputs=alone.inputs.model_copy(update={"training": training}))

    half_batches = train("batches", n_steps=n_steps, devices=2)
    half_latents = train("latents", n_steps=1500, shards=2)
    parents = {**alone.parents, "train": half_batches}
    scale = Step("scale", "pt_it", ScaleInputs(layer=scaling_artifacts.LAYER), parents)
    return [*alone.parents.values(), half_batches, scale, half_latents]


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
    steps, same = plan(one), plan(two)
    assert [step.key for step in steps] == [step.key for step in same]
    *_, train, scale, half_latents = same
    submitted = submit(on_nodes(two, same, 2))
    wait_for_row(two, half_latents, 300)
    requeue({job.name: number for job, number in submitted.new}[half_latents.name])
    assert set(settle(on_nodes(two, same, 2)).values()) == {"finished"}
    submit(on_nodes(one, steps, 1))
    assert set(settle(on_nodes(one, steps, 1)).values()) == {"finished"}
    assert log_of(two, half_latents).count(STARTED) == 2
    for step in (train, half_latents):
        assert bytes_of(one, step) == bytes_of(two, step) != {}
    assert table(one, scale) == table(two, scale)


def test_a_process_lost_on_the_second_node_is_named(tmp_path: Path, cluster_only: None) -> None:
    store = tmp_path / "store"
    *parents, train, _, _ = plan(store, n_steps=1_000_000)
    steps = [*parents, train]
    ((_, job),) = submit(on_nodes(store, steps, 2)).new
    wait_for_row(store, train, 200)
    os.kill(rank_of(job, node=1), signal.SIGKILL)
    assert settle(on_nodes(store, steps, 2))[train.name] == "failed"
    assert "node 2 of 2" in log_of(store, train)
    assert "was killed" in log_of(store, train)


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
