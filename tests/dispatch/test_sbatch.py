"""Cluster profiles: found by name or path; a key that does not exist is named with the near ones."""

from pathlib import Path

import pytest

from crossdiff.command_settings import SlurmDispatch
from crossdiff.dispatch.sbatch import (
    FOLDERS,
    Profile,
    load_profile,
    parameters,
    refuse_unfit_jobs,
    resolve,
    resources_of,
)
from crossdiff.pipeline.steps import Step
from crossdiff.settings import Runtime
from crossdiff.stages import protocol
from crossdiff.stages.import_crosscoder import ImportInputs
from crossdiff.stages.protocol import Resources
from crossdiff.stages.scale import ScaleInputs
from crossdiff.stages.tokens import STAGE as TOKENS


def written(folder: Path, text: str) -> str:
    path = folder / "lab.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("path", sorted(FOLDERS[0].glob("*.yaml")), ids=lambda path: path.stem)
def test_every_profile_in_the_checkout_can_be_read(path: Path) -> None:
    assert load_profile(path.stem) == load_profile(str(path))


def test_no_profile_is_an_empty_one() -> None:
    assert load_profile(None) == Profile()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("partion: gpu", "key partion does not exist; did you mean partition"),
        ("stages: {train: {gpu: 1}}", r"key stages\.train\.gpu does not exist; did you mean gpus"),
        ("stages: {trian: {gpus: 1}}", r"stages: trian is no stage; stages are annotate, .*train"),
        ("gpus: many", "gpus='many'"),
        ("hours: -1", "hours=-1: .*greater than 0"),
        ("a: [", "is not YAML"),
        ("- a list", "should be a valid dictionary"),
    ],
)
def test_a_wrong_profile_names_the_key_and_the_rule(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_profile(written(tmp_path, text))


def test_an_unknown_profile_lists_those_there_are() -> None:
    with pytest.raises(
        ValueError, match=r"dispatch.profile=nowhere is no cluster profile; there are example, local"
    ):
        load_profile("nowhere")


def test_the_stronger_source_wins_and_the_stage_fills_the_rest() -> None:
    """Command line per stage, command line, profile per stage, profile, the stage's own."""
    dispatch = SlurmDispatch(gpus=3, stages={"match": Resources(partition="a")})
    profile = Profile(partition="c", hours=5, qos="low", stages={"match": Resources(partition="b", hours=4)})
    found = resolve(protocol.stage("match"), dispatch, profile)
    assert (found.partition, found.gpus, found.hours, found.qos) == ("a", 3, 4, "low")
    assert found.memory_gb == protocol.stage("match").resources.memory_gb
    assert resolve(protocol.stage("report"), SlurmDispatch(), Profile()).gpus == 0


def test_resources_fill_only_what_is_left_open() -> None:
    assert Resources(gpus=0).over(Resources(gpus=2, cpus=3)) == Resources(gpus=0, cpus=3)


def test_several_nodes_are_one_job_with_a_task_on_each() -> None:
    found = parameters("train", Resources(nodes=2, gpus=4), [], SlurmDispatch())
    assert (found["nodes"], found["ntasks_per_node"], found["gpus_per_node"]) == (2, 1, 4)
    assert found["srun_args"] == ["--cpus-per-task=1", "--kill-on-bad-exit=0", "--wait=600"]
    assert "nodes" not in parameters("train", Resources(nodes=1, gpus=4), [], SlurmDispatch())


def refuse(
    tmp_path: Path, stage: str = "scale", *, devices: int = 1, device: str = "auto", **asked: int
) -> None:
    dispatch = SlurmDispatch(devices=devices, stages={stage: Resources(**asked)})
    step = Step(stage, "pt_it", ScaleInputs(layer=1))
    runtime = Runtime(store=tmp_path, device=device, n_devices=devices)
    refuse_unfit_jobs([step], runtime, resources_of([step], dispatch, device=device))


def test_what_fits_passes(tmp_path: Path) -> None:
    refuse(tmp_path)
    refuse(tmp_path, devices=4, gpus=4)
    refuse(tmp_path, devices=4, gpus=2, nodes=2)
    refuse(tmp_path, devices=4, device="cpu")
    refuse(tmp_path, devices=4, gpus=0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"devices": 4}, r"dispatch.devices=4 needs 4 GPU\(s\) on each of 1 .*dispatch.stages.scale.gpus=4"),
        ({"devices": 4, "nodes": 2}, r"needs 2 GPU\(s\) on each of 2 node\(s\), .* asks for 1;"),
        ({"devices": 3, "nodes": 2}, r"dispatch.devices=3 processes do not divide into .*scale.nodes=2"),
        ({"nodes": 2}, r"scale pt_it is one process, .* give dispatch.devices=2 or a multiple, or leave out"),
        ({"stage": TOKENS.name, "nodes": 2}, r"tokens pt_it is one process, .*; leave out nodes for tokens"),
    ],
)  # fmt: skip
def test_what_does_not_is_refused_with_what_to_set(tmp_path: Path, given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        refuse(tmp_path, **given)


def test_an_imported_crosscoder_has_one_node_beside_trainings_on_several(tmp_path: Path) -> None:
    dispatch = SlurmDispatch(stages={"train": Resources(nodes=2)})
    step = Step("train", "pt_it", ImportInputs(path="a", fingerprint="b", layer=1))
    resources = resources_of([step], dispatch, device="auto")
    assert resources[True, "train"].nodes is None
    refuse_unfit_jobs([step], Runtime(store=tmp_path), resources)
