"""dispatch=slurm as a user types it: what is wrong is one message and exit code 2."""

from pathlib import Path

import pytest

from crossdiff import __main__ as command_line

POINT = ("model_pair=pt_it", "layer=20", "dispatch=slurm", "progress=false")


def typed(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Exit code of the command line, run in this process."""
    monkeypatch.setattr("sys.argv", ["run.py", *arguments])
    return command_line.guarded(command_line._run)


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scheduler that takes jobs and never runs them; returns the folder of its state."""
    folder = tmp_path / "stub"
    folder.mkdir()
    (folder / "next").write_text("1\n")
    monkeypatch.setenv("STUB_SLURM", str(folder))
    monkeypatch.setenv("PATH", f"{Path(__file__).resolve().parents[2] / 'slurm' / 'stub'}:/usr/bin:/bin")
    return folder


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "lab.yaml"
    path.write_text("partitoin: gpu\n")
    return path


def test_without_sbatch_nothing_is_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert typed(monkeypatch, *POINT, f"store={tmp_path}/store") == 2
    told = capfd.readouterr().err
    assert told.startswith("error: dispatch=slurm needs sbatch, srun, squeue, scancel on the PATH")
    assert "slurm/local_cluster.sh up" in told
    assert not (tmp_path / "store").exists()


def test_a_profile_key_that_does_not_exist_is_named(
    tmp_path: Path,
    profile: Path,
    stub: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert typed(monkeypatch, *POINT, f"dispatch.profile={profile}", f"store={tmp_path}/store") == 2
    assert f"error: profile {profile}: key partitoin does not exist; did you mean partition" in (
        capfd.readouterr().err
    )


def test_a_partition_that_refuses_is_named_with_what_was_asked(
    tmp_path: Path, stub: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (stub / "refuse").write_text("partition=nope\n")
    assert typed(monkeypatch, *POINT, "dispatch.partition=nope", f"store={tmp_path}/store") == 2
    told = capfd.readouterr().err
    assert "sbatch refused" in told
    assert "It asked for partition=nope" in told
    assert "Traceback" not in told


def test_cancel_without_slurm_says_what_it_acts_on(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert typed(monkeypatch, "model_pair=pt_it", "layer=20", "action=cancel") == 2
    assert "action=cancel acts on SLURM jobs" in capfd.readouterr().err


def test_a_plan_names_the_store_it_looked_in_and_the_key_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    plan = ("model_pair=pt_it", "layer=20", f"store={tmp_path}", "action=plan")
    assert typed(monkeypatch, *plan, "annotator=claude") == 0
    told = capfd.readouterr().out
    assert f"steps finished in store={tmp_path}; still to do" in told
    assert (
        "this plan cannot run yet: this annotator needs an API key and ANTHROPIC_API_KEY is not set" in told
    )
    assert typed(monkeypatch, *plan, "annotator=lexical") == 0
    assert "cannot run yet" not in capfd.readouterr().out


def test_a_plan_refuses_a_device_that_does_not_exist(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert typed(monkeypatch, "model_pair=pt_it", "layer=20", "action=plan", "device=gpu") == 2
    assert "device=gpu is unknown; choose auto, cpu, cuda or cuda:<number>" in capfd.readouterr().err
