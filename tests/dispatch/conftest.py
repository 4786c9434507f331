"""A stub scheduler, fake stages, and the one-machine SLURM when it is up."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "fakes"))


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake stages in place of the real ones."""
    import fake_stages

    from crossdiff.stages import protocol

    protocol.stages()  # the studies' own are imported while the stages that they import are the real ones
    for stage in fake_stages.STAGES:
        name = f"crossdiff.stages.{stage}"
        monkeypatch.setitem(sys.modules, name, sys.modules.get(name))  # restored afterwards
    fake_stages.install()


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fakes: None) -> Path:
    """A scheduler that takes jobs and never runs them; returns the folder of its state."""
    folder = tmp_path / "stub"
    folder.mkdir()
    (folder / "next").write_text("1\n")
    monkeypatch.setenv("STUB_SLURM", str(folder))
    monkeypatch.setenv("PATH", f"{HERE.parents[1] / 'slurm' / 'stub'}:/usr/bin:/bin")
    return folder


@pytest.fixture
def cluster(fakes: None, cluster_only: None) -> None:
    """The one-machine SLURM and fake stages."""


@pytest.fixture
def cluster_only() -> None:
    """The one-machine SLURM; skips where it is not up."""
    if not shutil.which("sinfo"):
        pytest.skip("no SLURM on this machine; slurm/local_cluster.sh up installs one")
    nodes = subprocess.run(
        ["sinfo", "-h", "-o", "%t"], capture_output=True, text=True, timeout=60, check=False
    )
    if not {"idle", "mix", "alloc"} & set(nodes.stdout.split()):
        pytest.skip("SLURM is not up; start it with slurm/local_cluster.sh up")
    if os.environ.get("SLURM_JOB_ID"):
        pytest.skip("inside a SLURM job")
