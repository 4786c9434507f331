"""Nodes and GPUs that do not fit the processes of a step are refused before anything is submitted."""

from pathlib import Path

import pytest

from crossdiff.command_settings import SlurmDispatch
from crossdiff.dispatch.shared_jobs import refuse_unfit_jobs, resources_of
from crossdiff.pipeline.steps import Step
from crossdiff.settings import Runtime
from crossdiff.stages.import_crosscoder import ImportInputs
from crossdiff.stages.protocol import Resources
from crossdiff.stages.scale import ScaleInputs
from crossdiff.stages.tokens import STAGE as TOKENS


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
