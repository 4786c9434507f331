"""A run that was stopped, however it was stopped, ends with the bits of an undisturbed one."""

import itertools
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.training import resume
from crossdiff.training.resume import WholeCheckpoints, differences, random_states, restore_random_states
from crossdiff.training.run import fit
from crossdiff.training.trainer import RunFolder
from tests.interrupted_runs import Interrupting, assert_same_bits, logged, make_run
from tests.planted_source import PlantedSource

ROOT = Path(__file__).parents[2]


def train_and_die(folder: str, at: str) -> None:
    """Run in a subprocess: killed while batch `at` is fetched, or half way through the next checkpoint."""
    if at == "save":
        whole = torch.save

        def cut(content: object, file: Any) -> None:
            whole(content, file)
            file.flush()
            os.truncate(file.handle.name, 1000)
            os.kill(os.getpid(), signal.SIGKILL)

        torch.save = cut
    source = Interrupting(at=-1 if at == "save" else int(at), number=signal.SIGKILL)
    fit(make_run(), source, RunFolder(Path(folder)))


def die_twice(folder: str) -> None:
    """Run in a subprocess: two processes that die, forked once everything is imported."""
    for at in ("14", "save"):
        child = os.fork()
        if child == 0:
            train_and_die(folder, at)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), status
        assert os.WTERMSIG(status) == signal.SIGKILL
        assert RunFolder(Path(folder)).checkpoint.is_file()


def test_kill_9_in_a_step_and_then_in_a_save_changes_no_bit(undisturbed: Crosscoder, tmp_path: Path) -> None:
    command = "import sys; from tests.training.test_resume import die_twice as d; d(sys.argv[1])"
    subprocess.run([sys.executable, "-c", command, str(tmp_path)], cwd=ROOT, check=True, timeout=300)
    crosscoder, figures = fit(make_run(), PlantedSource(n_rows=2000), RunFolder(tmp_path))
    assert_same_bits(crosscoder, undisturbed)
    steps = [line.split(",")[0] for line in RunFolder(tmp_path).metrics.read_text().splitlines()]
    assert steps == ["step", "4", "8", "9", "12", "16", "18", "20", "24", "27", "28", "30"]
    assert figures["n_steps"] == 30


@pytest.mark.parametrize("tail", [b"12,1536,3.1", b"12,15\r\n", b"\0" * 200_000, b"\xff\xfe,\r\n"])
def test_a_tail_of_the_metrics_that_a_crash_broke_is_dropped(
    tail: bytes, stopped: RunFolder, undisturbed: Crosscoder, undisturbed_folder: RunFolder
) -> None:
    with stopped.metrics.open("ab") as handle:
        handle.write(tail)
    fit(make_run(), PlantedSource(n_rows=2000), stopped)
    assert logged(stopped) == logged(undisturbed_folder)


@pytest.fixture
def stopped(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path)
    with pytest.raises(SystemExit):
        fit(make_run(), Interrupting(at=9, number=signal.SIGTERM), folder)
    return folder


@pytest.mark.parametrize("optimizer", ["adam", "lazy_adam"])
def test_dedicated_features_stay_masked_over_a_restart(optimizer: str, tmp_path: Path) -> None:
    feature = DictionarySettings(n_latents=128, architecture="dedicated_feature", dedicated_share=0.1)
    run = replace(make_run(optimizer=optimizer), dictionary=feature)
    whole, _ = fit(run, PlantedSource(n_rows=2000), RunFolder(tmp_path / "whole"))
    with pytest.raises(SystemExit):
        fit(run, Interrupting(at=9, number=signal.SIGTERM), RunFolder(tmp_path / "cut"))
    resumed, _ = fit(run, PlantedSource(n_rows=2000), RunFolder(tmp_path / "cut"))
    assert_same_bits(resumed, whole)
    for part in (resumed.encoder, resumed.decoder):
        assert not bool(part[:13, 1].any())
        assert not bool(part[13:26, 0].any())
        assert bool(part[:13, 0].any())
        assert not torch.equal(part[26:, 0], part[26:, 1])


def test_changed_settings_are_named_on_resume(stopped: RunFolder) -> None:
    with pytest.raises(
        ValueError, match=r"training.learning_rate was 0.003, is 0.1.*go back to them, or remove"
    ):
        fit(make_run(learning_rate=0.1), PlantedSource(n_rows=2000), stopped)


def test_a_cut_checkpoint_is_refused(stopped: RunFolder) -> None:
    content = stopped.checkpoint.read_bytes()
    stopped.checkpoint.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"is cut, or no checkpoint of this trainer.*remove it"):
        fit(make_run(), PlantedSource(n_rows=2000), stopped)


def test_a_foreign_checkpoint_is_refused(stopped: RunFolder) -> None:
    torch.save({"state_dict": {}}, stopped.checkpoint)
    with pytest.raises(ValueError, match="no checkpoint of this trainer"):
        fit(make_run(), PlantedSource(n_rows=2000), stopped)


def test_another_number_of_devices_is_refused(stopped: RunFolder) -> None:
    content = torch.load(stopped.checkpoint, weights_only=True)
    torch.save({**content, "n_devices": 4}, stopped.checkpoint)
    with pytest.raises(ValueError, match=r"written on 4 device\(s\), this run has 1"):
        fit(make_run(), PlantedSource(n_rows=2000), stopped)


def test_a_checkpoint_is_flushed_beside_the_last_one_before_it_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = tmp_path / "folder" / "last.ckpt", []
    flush = os.fsync

    def flushed(descriptor: int) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
        seen.append((name, sorted(found.name for found in path.parent.iterdir())))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr("tempfile.mkstemp", lambda *_, **__: pytest.fail("a file elsewhere"))
    for number in range(2):
        WholeCheckpoints().save_checkpoint({"number": number}, path)
    assert seen[2:] == [("last.part", ["last.ckpt", "last.part"]), ("folder", ["last.ckpt"])]
    assert WholeCheckpoints().load_checkpoint(path, weights_only=True) == {"number": 1}


def test_checkpoints_wait_for_the_clock_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved, save = [], WholeCheckpoints.save_checkpoint

    def counted(self: WholeCheckpoints, checkpoint: dict, path: Path, storage_options: object = None) -> None:
        saved.append(checkpoint["global_step"])
        save(self, checkpoint, path)

    monkeypatch.setattr(WholeCheckpoints, "save_checkpoint", counted)
    seconds = itertools.count(step=60)  # a minute passes at every look: one a step, one a save
    clock = SimpleNamespace(monotonic=lambda: next(seconds))
    monkeypatch.setattr("crossdiff.training.callbacks.time", clock)
    fit(make_run(n_steps=20, checkpoint_minutes=7), PlantedSource(n_rows=2000), RunFolder(tmp_path))
    assert saved == [8, 16]


def test_differences_are_named_by_their_dotted_path() -> None:
    assert differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "d": 3}}) == [
        "a.c was 2, is None",
        "a.d was None, is 3",
    ]


def draws() -> tuple[list[float], float, float]:
    return torch.rand(3).tolist(), float(np.random.rand()), random.random()  # noqa: NPY002


def test_random_states_are_plain_values_that_bring_every_generator_back(tmp_path: Path) -> None:
    torch.save(random_states(), tmp_path / "states.pt")
    first = draws()
    restore_random_states(torch.load(tmp_path / "states.pt", weights_only=True))
    assert draws() == first


def meet(patched: pytest.MonkeyPatch, *commits: str | None, seeds: tuple[int, int] = (0, 0)) -> None:
    """Two ranks say what git tells them and what they were started for."""
    told: list[dict] = []
    patched.setattr(resume, "n_ranks", lambda _: 2)
    patched.setattr(resume, "told_by_all_ranks", lambda own: told.append(own) or [own, own])
    for commit, seed in zip(commits, seeds, strict=True):
        patched.setattr(resume, "git_commit", lambda known=commit: known)
        resume.refuse_disagreement({"seed": seed})
    patched.setattr(resume, "told_by_all_ranks", lambda _: told)
    resume.refuse_disagreement({})


def test_other_settings_and_another_commit_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    meet(monkeypatch, "aa", "aa")
    with pytest.raises(ValueError, match="process 1 of 2 .* seed was 0, is 1; give all the same command"):
        meet(monkeypatch, "aa", "aa", seeds=(0, 1))
    with pytest.raises(ValueError, match="commit was 'aa', is 'bb'"):
        meet(monkeypatch, "aa", "bb")


def test_a_commit_that_git_did_not_tell_and_later_edits_are_no_disagreement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for commits in (("aa", None), (None, "aa"), (None, None), ("aa", "aa+changes")):
        meet(monkeypatch, *commits)
