"""Tasks of several nodes that meet in a folder: who is missing, what is told, and two nodes as one."""

from __future__ import annotations

import multiprocessing
from functools import partial
from pathlib import Path

import pytest
import torch

from crossdiff.stages import scale
from crossdiff.training.launch import lend_ranks, tell_first_node
from crossdiff.training.nodes import Nodes, check_gpus, leading, nodes_of_job
from crossdiff.training.scaling_pass import scaling_sums
from tests.scaling_artifacts import build
from tests.training.test_scaling_pass import INPUTS


def pair(folder: Path) -> list[Nodes]:
    found = [Nodes(2, own, folder / "nodes_0") for own in range(2)]
    found[0].sign_in()
    return found


def test_a_node_that_does_not_report_is_named(tmp_path: Path) -> None:
    first, second = pair(tmp_path)
    with pytest.raises(ValueError, match=r"node 2 of 2 of this job did not report in .*nodes_0 within 0 s"):
        first.wait_for_all(seconds=0)
    second.sign_in()
    first.wait_for_all(seconds=0)


def test_what_fails_on_another_node_is_raised_on_the_first_with_its_name(tmp_path: Path) -> None:
    first, second = pair(tmp_path)
    first.end()  # so that the second does not wait for it
    for error, kind in ((ValueError("no such file"), ValueError), (MemoryError("lack of it"), MemoryError)):
        tell_first_node(second, error)
        with pytest.raises(kind, match=rf"node 2 of 2 \(.*\): {error}"), leading(first):
            pass
    tell_first_node(second, RuntimeError("Traceback ...\nRuntimeError: gone"))
    with pytest.raises(ValueError, match=r"node 2 of 2 \(.*\): RuntimeError: RuntimeError: gone"):
        first.refuse_failed()


def test_a_requeued_job_meets_in_a_new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_NODEID", "1")
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    assert nodes_of_job(2, tmp_path) == Nodes(2, 1, tmp_path / "17" / "nodes_0")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    assert nodes_of_job(2, tmp_path).folder == tmp_path / "17" / "nodes_3"


def test_a_node_has_its_share_of_the_ranks() -> None:
    assert Nodes(2, 1).ranks_here(6) == 3
    with pytest.raises(ValueError, match="5 devices do not divide into 2 nodes"):
        Nodes(2, 1).ranks_here(5)
    check_gpus("cpu", 2, setting="dispatch.devices")


@pytest.mark.slow
def test_two_nodes_scale_with_the_bits_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts = build(tmp_path / "made")
    both = partial(scale.open_both, INPUTS, artifacts.parents, "cpu")
    expected = scaling_sums(both, batch_size=301, device="cpu", n_devices=2)[1]
    for name, value in {"SLURM_JOB_NODELIST": "localhost", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    first, second = pair(tmp_path)
    second.sign_in()
    other = multiprocessing.get_context("spawn").Process(target=lend_ranks, args=(second,))
    other.start()
    with leading(first):
        found = scaling_sums(both, batch_size=301, device="cpu", n_devices=2)[1]
    other.join(60)
    assert other.exitcode == 0
    for name in ("energy", "overlap", "n_active", "maximum", "template_energy"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
