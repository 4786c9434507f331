"""A signal stops a run at the next boundary; one that comes during a validation breaks that off."""

import signal
from pathlib import Path

import pytest
import torch

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.training.run import fit
from crossdiff.training.trainer import RunFolder
from tests.interrupted_runs import Interrupting, InterruptingValidation, assert_same_bits, logged, make_run
from tests.planted_source import PlantedSource


@pytest.mark.parametrize(
    ("number", "ending"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]
)
def test_a_stop_signal_saves_at_the_next_boundary_and_says_how_to_go_on(
    number: signal.Signals, ending: type[BaseException], undisturbed: Crosscoder, tmp_path: Path, capsys
) -> None:
    usual = signal.default_int_handler if ending is KeyboardInterrupt else signal.SIG_DFL
    inherited = signal.signal(number, usual)  # a shell's background jobs are born deaf to SIGINT
    try:
        with pytest.raises(ending) as stopped:
            fit(make_run(), Interrupting(at=9, number=number), RunFolder(tmp_path))
        assert signal.getsignal(number) == usual
    finally:
        signal.signal(number, inherited)
    if ending is SystemExit:
        assert stopped.value.code == 128 + signal.SIGTERM  # type: ignore[attr-defined]
    assert "saved at step 9: run the same command again to continue" in capsys.readouterr().err
    crosscoder, _ = fit(make_run(), PlantedSource(n_rows=2000), RunFolder(tmp_path))
    assert_same_bits(crosscoder, undisturbed)


def test_submitits_handler_is_called_after_the_save(tmp_path: Path) -> None:
    folder, saved = RunFolder(tmp_path), []
    before = signal.signal(signal.SIGUSR2, lambda *_: saved.append(folder.checkpoint.is_file()))
    try:
        with pytest.raises(SystemExit):
            fit(make_run(), Interrupting(at=9, number=signal.SIGUSR2), folder)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert saved == [True]


def test_term_inside_slurm_saves_and_goes_on(
    undisturbed: Crosscoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    crosscoder, _ = fit(make_run(), Interrupting(at=9, number=signal.SIGTERM), RunFolder(tmp_path))
    assert_same_bits(crosscoder, undisturbed)


def test_a_signal_in_the_last_step_leaves_only_the_end_to_do(undisturbed: Crosscoder, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        fit(make_run(), Interrupting(at=29, number=signal.SIGTERM), RunFolder(tmp_path))
    crosscoder, _ = fit(make_run(), PlantedSource(n_rows=2000), RunFolder(tmp_path))
    assert_same_bits(crosscoder, undisturbed)


def test_a_signal_in_a_validation_breaks_it_off_and_the_next_run_begins_with_it(
    undisturbed: Crosscoder, undisturbed_folder: RunFolder, tmp_path: Path, capsys
) -> None:
    folder, source = RunFolder(tmp_path), InterruptingValidation(signal.SIGTERM)
    with pytest.raises(SystemExit):
        fit(make_run(), source, folder)
    assert source.n_validated <= 1
    assert "saved at step 9:" in capsys.readouterr().err
    assert [row["step"] for row in logged(folder)] == ["4", "8"]
    crosscoder, _ = fit(make_run(), PlantedSource(n_rows=2000), folder)
    assert_same_bits(crosscoder, undisturbed)
    assert logged(folder) == logged(undisturbed_folder)


def test_no_validation_begins_while_a_signal_waits(
    undisturbed: Crosscoder, undisturbed_folder: RunFolder, tmp_path: Path
) -> None:
    folder, source = RunFolder(tmp_path), Interrupting(at=8, number=signal.SIGTERM)
    source.batches_of = lambda *_, **__: pytest.fail("validated")  # type: ignore[method-assign]
    with pytest.raises(SystemExit):
        fit(make_run(), source, folder)
    fit(make_run(), PlantedSource(n_rows=2000), folder)
    assert logged(folder) == logged(undisturbed_folder)


def test_kill_9_in_a_validation_after_a_save_at_the_same_step_loses_no_row(tmp_path: Path) -> None:
    class Dying(PlantedSource):
        def batches_of(self, rows: torch.Tensor, *, batch_size: int):
            raise RuntimeError("as good as killed")

    folder, whole = RunFolder(tmp_path / "cut"), RunFolder(tmp_path / "whole")
    run = make_run(n_steps=16, validate_every=8)
    with pytest.raises(RuntimeError, match="killed"):
        fit(run, Dying(n_rows=2000), folder)
    for each in (folder, whole):
        fit(run, PlantedSource(n_rows=2000), each)
    assert logged(folder) == logged(whole)


def test_a_validation_of_the_last_step_that_was_skipped_is_made_up_for(tmp_path: Path) -> None:
    folder, whole = RunFolder(tmp_path / "cut"), RunFolder(tmp_path / "whole")
    run = make_run(n_steps=18)
    with pytest.raises(SystemExit):
        fit(run, Interrupting(at=17, number=signal.SIGTERM), folder)
    assert [row["step"] for row in logged(folder)][-1] == "16"
    for each in (folder, whole):
        fit(run, PlantedSource(n_rows=2000), each)
    assert logged(folder) == logged(whole)


def test_term_inside_slurm_during_a_validation_saves_and_goes_on(
    undisturbed_folder: RunFolder, undisturbed: Crosscoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    folder = RunFolder(tmp_path)
    crosscoder, _ = fit(make_run(), InterruptingValidation(signal.SIGTERM), folder)
    assert_same_bits(crosscoder, undisturbed)
    rows, expected = logged(folder), logged(undisturbed_folder)
    assert [row["step"] for row in rows] == [row["step"] for row in expected]
