"""Trainings from one reader end with the bits of trainings alone, also after a stop, and read no more."""

from __future__ import annotations

import csv
import os
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.sparsity import BatchTopK
from crossdiff.data.paired_activations import Split
from crossdiff.data.paired_batch import PairedBatch
from crossdiff.training.members import train_together
from crossdiff.training.run import fit
from crossdiff.training.settings import TrainingSettings
from crossdiff.training.source import ActivationSource
from crossdiff.training.trainer import RunFolder, TrainingRun
from tests.planted_source import PlantedSource

N_STEPS = 12


class Counting(PlantedSource):
    """Counts what is asked of it, and sends this process a signal before one of the batches."""

    def __init__(self, *, stop_before: int | None = None) -> None:
        super().__init__(n_rows=1500, d_model=8, n_planted=16)
        self.asked: Counter = Counter()
        self.stop_before = stop_before

    def statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        self.asked["statistics"] += 1
        return super().statistics()

    def batches(self, *, split: Split = "all", batch_size: int) -> Iterator[PairedBatch]:
        self.asked[f"pass over {split}"] += 1
        yield from super().batches(split=split, batch_size=batch_size)

    def training_batch(self, number: int, *, seed: int, batch_size: int) -> PairedBatch:
        self.asked[number] += 1
        if number == self.stop_before:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().training_batch(number, seed=seed, batch_size=batch_size)


def run_of(seed: int, **training) -> TrainingRun:
    settings = {
        "n_steps": N_STEPS, "batch_size": 64, "learning_rate": 3e-3, "warmup_steps": 2, "log_every": 3,
        "validate_every": 6, "threshold_batches": 2, "checkpoint_every": 4, "dead_after_tokens": 200,
    }  # fmt: skip
    return TrainingRun(
        dictionary=DictionarySettings(n_latents=48),
        sparsity=BatchTopK(k=4),
        training=TrainingSettings(**{**settings, **training}),
        seed=seed,
        progress=False,
    )


def train(source: ActivationSource, run: TrainingRun, folder: Path) -> tuple:
    crosscoder, figures = fit(run, source, RunFolder(folder))
    measured = {
        name: value for name, value in figures.items() if name not in ("train_seconds", "tokens_per_s")
    }
    return crosscoder.state_dict(), measured


def metrics(folder: Path) -> list[dict[str, str]]:
    """Rows of metrics.csv without the rate."""
    with (folder / "metrics.csv").open(newline="") as handle:
        return [{name: row[name] for name in row if name != "tokens_per_s"} for row in csv.DictReader(handle)]


def planted() -> PlantedSource:
    return PlantedSource(n_rows=1500, d_model=8, n_planted=16)


def same(found: tuple | ValueError, expected: tuple) -> None:
    assert isinstance(found, tuple)
    assert found[1] == expected[1]
    for name, value in expected[0].items():
        assert torch.equal(found[0][name], value), name


@pytest.mark.parametrize("order_seed", [None, 7])
def test_each_member_is_the_crosscoder_that_it_is_alone(order_seed: int | None, tmp_path: Path) -> None:
    source, runs = Counting(), [run_of(seed, order_seed=order_seed) for seed in (0, 5, 2)]
    found = train_together(source, [partial(train, run=run, folder=tmp_path / f"{run.seed}") for run in runs])
    for run, member in zip(runs, found, strict=True):
        alone = tmp_path / f"alone_{run.seed}"
        same(member, train(planted(), run, alone))
        assert metrics(tmp_path / f"{run.seed}") == metrics(alone) != []
    assert source.asked["statistics"] == source.asked["pass over validation"] == 1
    read = [source.asked[number] for number in range(1, N_STEPS + 2)]
    assert read == [1 if order_seed else 3] * (N_STEPS + 1)


def test_a_stop_saves_every_member_and_each_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    runs = [run_of(seed, order_seed=7) for seed in (0, 5)]
    trainings = [partial(train, run=run, folder=tmp_path / f"{run.seed}") for run in runs]
    with pytest.raises(SystemExit) as stopped:
        train_together(Counting(stop_before=7), trainings)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert all(RunFolder(tmp_path / f"{run.seed}").checkpoint.is_file() for run in runs)
    found = train_together(Counting(), trainings)
    for run, member in zip(runs, found, strict=True):
        same(member, train(planted(), run, tmp_path / "alone" / str(run.seed)))


def test_a_refused_member_leaves_the_others_alone(tmp_path: Path) -> None:
    good, bad = run_of(0), run_of(1, learning_rate=1e30)
    found = train_together(
        Counting(), [partial(train, run=run, folder=tmp_path / f"{run.seed}") for run in (bad, good)]
    )
    assert "training diverged" in str(found[0])
    same(found[1], train(Counting(), replace(good), tmp_path / "alone"))


def test_a_crash_of_one_member_is_told_while_the_others_train(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[str] = []

    def crashes(source: ActivationSource) -> tuple:
        source.training_batch(3, seed=7, batch_size=64)
        raise RuntimeError("out of luck")

    class Listening(Counting):
        def training_batch(self, number: int, *, seed: int, batch_size: int) -> PairedBatch:
            if number == N_STEPS - 1:
                told.append(capsys.readouterr().err)
            return super().training_batch(number, seed=seed, batch_size=batch_size)

    good = partial(train, run=run_of(0, order_seed=7), folder=tmp_path / "0")
    with pytest.raises(RuntimeError, match="out of luck"):
        train_together(Listening(), [good, crashes])
    assert "training 2 of the 2 that share a reader has failed (RuntimeError: out of luck)" in told[0]


def test_ctrl_c_during_the_set_up_ends_it_before_a_step_is_done(tmp_path: Path) -> None:
    runs = [run_of(seed, order_seed=7) for seed in (0, 5)]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    class Pressed(Counting):
        def statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
            os.kill(os.getpid(), signal.SIGINT)
            return super().statistics()

    try:
        with pytest.raises(KeyboardInterrupt):
            train_together(
                source := Pressed(),
                [partial(train, run=run, folder=tmp_path / f"{run.seed}") for run in runs],
            )
    finally:
        signal.signal(signal.SIGINT, before)
    assert source.asked[1] == 0
    assert not any(RunFolder(tmp_path / f"{run.seed}").checkpoint.is_file() for run in runs)
