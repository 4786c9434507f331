"""Two processes train what one process trains."""

import csv
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing

from crossdiff.core.collective import own_part
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.training.launch import check_devices, fit_on_devices
from crossdiff.training.optimise import Stepper, clip_
from crossdiff.training.run import initial_crosscoder
from crossdiff.training.trainer import RunFolder, TrainingRun
from tests.planted_source import PlantedSource, planted_run


def small_source() -> PlantedSource:
    return PlantedSource(n_rows=2000)


class SlowToMeasure(PlantedSource):
    """Says when the final figures are being taken, and takes its time."""

    def batches(self, **settings):
        Path(os.environ["TOLD"]).touch()
        time.sleep(2)
        return super().batches(**settings)


def slow_to_measure() -> PlantedSource:
    return SlowToMeasure(n_rows=2000)


def broken_source() -> PlantedSource:
    source = PlantedSource(n_rows=2000)
    statistics = source.statistics()
    source.statistics = lambda: statistics  # type: ignore[method-assign]
    source.x[555, 0, 0] = float("nan")
    return source


def make_run(**training) -> TrainingRun:
    settings = {
        "n_steps": 24, "dead_after_tokens": 100, "validate_every": 12, "log_every": 6, "checkpoint_every": 10,
        **training,
    }  # fmt: skip
    return planted_run(**settings)


def fitted(folder: Path, **training) -> tuple[Crosscoder, dict]:
    return fit_on_devices(make_run(**training), small_source, RunFolder(folder))


@pytest.mark.slow
@pytest.mark.parametrize("step", ["dense", "sparse"])
def test_two_ranks_with_a_global_batch_top_k_train_the_weights_of_one(step: str, tmp_path: Path) -> None:
    """With dead latents, so that AuxK and its global residual variance take part."""
    one, figures = fitted(tmp_path / "one", step=step)
    two, figures_of_two = fitted(tmp_path / "two", step=step, devices=2)
    assert figures["dead_share"] > 0
    assert figures_of_two["dead_share"] == pytest.approx(figures["dead_share"], abs=0.02)
    torch.testing.assert_close(two.decoder, one.decoder, rtol=0, atol=3e-4)
    torch.testing.assert_close(two.threshold, one.threshold, rtol=1e-3, atol=0)
    rows = [(tmp_path / name / "metrics.csv").read_text().splitlines() for name in ("one", "two")]
    first = [[float(value or "nan") for value in row[1].split(",")[:4]] for row in rows]
    assert first[1] == pytest.approx(first[0], rel=1e-4)


def logged_losses(folder: Path) -> torch.Tensor:
    with (folder / "metrics.csv").open() as handle:
        return torch.tensor([float(row["loss"]) for row in csv.DictReader(handle)], dtype=torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize("step", ["dense", "sparse"])
def test_sixty_float32_losses_of_two_ranks_are_those_of_one(step: str, tmp_path: Path) -> None:
    every = {"step": step, "n_steps": 60, "log_every": 1, "validate_every": 60}
    fitted(tmp_path / "one", **every)
    fitted(tmp_path / "two", **every, devices=2)
    one, two = logged_losses(tmp_path / "one"), logged_losses(tmp_path / "two")
    assert len(one) == 60
    assert ((two - one).abs() / one).max() <= 1e-5
    assert one[-1] < 0.8 * one[0]


def double_losses(step: str, *, devices: int) -> torch.Tensor:
    """Losses of 200 steps in float64, every other latent of the first sixteenth dead from step 100 on."""
    run = make_run(step=step, devices=devices, n_steps=200)
    source = small_source()
    crosscoder = initial_crosscoder(
        source, run.dictionary, sparsity=run.sparsity, training=run.training, seed=0
    ).double()
    stepper = Stepper(crosscoder, run.sparsity, run.training)
    optimizer, losses = stepper.optimizer(), []
    for number in range(200):
        x = source.training_batch(number, seed=0, batch_size=run.training.batch_size).x.double()
        dead = torch.arange(0, 16, 2) if number >= 100 else torch.zeros(0, dtype=torch.long)
        losses.append(stepper.gradients(own_part(x), step=number, dead=dead).total)
        clip_(optimizer, crosscoder, max_norm=run.training.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
    return torch.stack(losses)


def rank(number: int, folder: str, step: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=number, world_size=2)
    torch.set_num_threads(1)
    torch.save(double_losses(step, devices=2), f"{folder}/losses_{number}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("step", ["dense", "sparse"])
def test_two_hundred_float64_losses_of_two_ranks_are_those_of_one(step: str, tmp_path: Path) -> None:
    multiprocessing.spawn(rank, args=(str(tmp_path), step), nprocs=2)
    one = double_losses(step, devices=1)
    for number in range(2):
        two = torch.load(tmp_path / f"losses_{number}.pt", weights_only=True)
        assert ((two - one).abs() / one).max() <= 1e-9
    assert one[-1] < 0.6 * one[0]


@pytest.mark.slow
def test_an_error_of_a_rank_reaches_the_user_as_one_message(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"token rows \[555\]"):
        fit_on_devices(make_run(devices=2), broken_source, RunFolder(tmp_path))


@pytest.mark.slow
def test_a_stop_signal_reaches_all_ranks_and_the_run_continues(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    whole, _ = fitted(tmp_path / "whole", devices=2, n_steps=60)

    def stop_when_saved() -> None:
        while not folder.checkpoint.is_file():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop_when_saved)
    thread.start()
    with pytest.raises(SystemExit):
        fitted(tmp_path, devices=2, n_steps=60)
    thread.join()
    assert folder.checkpoint.is_file()
    again, _ = fitted(tmp_path, devices=2, n_steps=60)
    assert torch.equal(again.decoder, whole.decoder)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["training", "measuring"])
def test_two_ranks_that_survive_a_term_inside_slurm_hand_over_their_result(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("TOLD", str(tmp_path / "told"))
    folder, received = RunFolder(tmp_path), []

    def term_at_the_moment() -> None:
        while not (folder.checkpoint if moment == "training" else tmp_path / "told").is_file():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    thread = threading.Thread(target=term_at_the_moment)
    thread.start()
    try:
        run = make_run(devices=2, n_steps=60)
        _, figures = fit_on_devices(run, slow_to_measure, folder)
    finally:
        signal.signal(signal.SIGTERM, before)
        thread.join()
    assert figures["n_steps"] == 60
    assert received == []  # fit_on_devices' own handler got it


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="does not divide into devices=3 x accumulate=1 parts"):
        check_devices(make_run(devices=3))
