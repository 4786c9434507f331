"""dispatch=slurm as a user types it: what is wrong is one message and exit code 2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from crossdiff import __main__ as command_line
from crossdiff.actions import run
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.dispatch import local
from crossdiff.dispatch.loggers import NoTracker
from crossdiff.io.interop import load_dictionary_learning
from crossdiff.pipeline.plan import plan
from crossdiff.pipeline.steps import Step
from crossdiff.settings import Runtime
from tests.finished_annotation import experiment
from tests.test_command_line import crossdiff

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


PAIR = ("model_pair=toy_pt_it", "corpus=toy", "layer=1", "organism=demo", "dictionary=toy", "training=demo")
SHORT = (
    "organism.pretraining.n_steps=4", "organism.tuning.n_steps=4", "organism.preference.n_steps=4",
    "organism.n_web_documents=300", "organism.n_chat_documents=400", "organism.n_rate_prompts=1",
    "sparsity=toy", "training.n_steps=12", "training.threshold_batches=2", "progress=false",
)  # fmt: skip


def test_the_plan_ends_with_the_crosscoder(tmp_path: Path) -> None:
    done = crossdiff("action=train", "plan=true", *PAIR, f"store={tmp_path}/store")
    assert done.returncode == 0, done.stderr
    assert "train toy_pt_it" in done.stdout
    assert "scale" not in done.stdout
    assert "report" not in done.stdout


def test_what_counts_exclusive_latents_refuses_a_dictionary_of_differences(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    differs = "dictionary.architecture=diff_sae"
    for asked in ((*PAIR, "action=ask"), (*PAIR, "action=export"), ("experiment=layers", "size=ci")):
        assert typed(monkeypatch, *asked, differs) == 2
        assert "give action=run with model_pair=... or comparison=..." in capfd.readouterr().err


@pytest.mark.slow
def test_a_dictionary_of_differences_is_trained_found_again_and_exported(tmp_path: Path) -> None:
    given = (*PAIR, *SHORT, f"store={tmp_path}/store", "dictionary.architecture=diff_sae")
    done = crossdiff("action=train", *given)
    assert done.returncode == 0, done.stderr
    folder = done.stdout.splitlines()[-1].removeprefix("crosscoder toy_pt_it: ")
    assert Crosscoder.load(folder).decoder.shape == (1024, 1, 96)
    again = crossdiff("action=train", *given)
    assert again.stdout.splitlines()[-1] == done.stdout.splitlines()[-1]
    refused = crossdiff("action=export", "export.what=checkpoint", f"export.folder={tmp_path}/export", *given)
    assert refused.returncode == 2
    assert "architecture=diff_sae has no counterpart in dictionary_learning" in refused.stderr
    plain = (*PAIR, *SHORT, f"store={tmp_path}/store")
    assert crossdiff("action=train", *plain).returncode == 0
    exported = crossdiff(
        "action=export", "export.what=checkpoint", f"export.folder={tmp_path}/export", *plain
    )
    assert exported.returncode == 0, exported.stderr
    assert load_dictionary_learning(tmp_path / "export" / "toy_pt_it_1").n_latents == 1024


def test_processes_and_devices_would_want_the_same_accelerators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = ("experiment=demo", "dispatch.processes=2", "training.devices=2", f"store={tmp_path}/store")
    assert typed(monkeypatch, *asked) == 2
    assert "dispatch.processes=2 gives every step one accelerator, training.devices=2" in (
        capfd.readouterr().err
    )


def test_the_other_steps_run_and_each_is_told_once(tmp_path: Path, monkeypatch, capsys) -> None:
    """The steps are stand-ins: no real crosscoder of a second fails, and what follows is the plan alone."""
    asked = experiment(tmp_path, "comparison.n_seeds=2")
    ended: list[str] = []

    def run_steps(
        steps: Sequence[Step], runtime: Runtime, *, finished: Callable, failed: Callable, n_processes: int
    ) -> list[local.Outcome]:
        for step in steps:
            if step.name == "train toy_pt_simpo_seed1":
                failed(step, error := ValueError("the loss is not finite"))
                raise error
            state = "reused" if step.name in ended else "done"
            ended.append(step.name)
            finished(local.Outcome(step, state, 1.0, {}))
        return []

    monkeypatch.setattr(local, "run_steps", run_steps)
    (remaining,), made = run._finish([asked], plan(asked), Runtime(store=tmp_path), NoTracker())
    names = [outcome.step.name for outcome in made]
    assert names == list(dict.fromkeys(names))
    assert {outcome.state for outcome in made} == {"done"}
    assert {step.name for step in plan(remaining)} <= set(names)
    said = capsys.readouterr().err
    assert "train toy_pt_simpo_seed1 failed: the loss is not finite" in said
    assert "comparison.without=[toy_pt_simpo_seed1]" in said
