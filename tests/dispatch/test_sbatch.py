"""Cluster profiles: found by name or path; a key that does not exist is named with the near ones."""

from pathlib import Path

import pytest

from crossdiff.command_settings import SlurmDispatch
from crossdiff.dispatch.sbatch import FOLDERS, Profile, load_profile, parameters, resolve
from crossdiff.stages import protocol
from crossdiff.stages.protocol import Resources


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
