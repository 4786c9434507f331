"""A run whose latents are dealt to two ranks: as one process, killed, resumed, resumed by one."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from crossdiff.core import shard_files
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.shard import CrosscoderShard, Shard
from crossdiff.training.launch import fit_on_devices
from crossdiff.training.shard_resume import (
    ShardedCheckpoints,
    WholeOfShards,
    check_sharded,
    packed,
    save_block,
    unpacked,
)
from crossdiff.training.trainer import RunFolder, TrainingRun
from tests.planted_source import PlantedSource, planted_run


class Killing(PlantedSource):
    """Kills this process while the batch that KILL_AT names is fetched, if it is one of KILL_RANKS."""

    def training_batch(self, number: int, *, seed: int, batch_size: int):
        if str(number) == os.environ.get("KILL_AT") and os.environ["LOCAL_RANK"] in os.environ["KILL_RANKS"]:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().training_batch(number, seed=seed, batch_size=batch_size)


def source() -> PlantedSource:
    return Killing(n_rows=2000)


def make_run(**training) -> TrainingRun:
    settings = {
        "n_steps": 60, "dead_after_tokens": 300, "validate_every": 18, "log_every": 1, "checkpoint_every": 10,
        **training,
    }  # fmt: skip
    return planted_run(**settings)


def rows_of(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    return [{name: float(v or "nan") for name, v in row.items() if name != "tokens_per_s"} for row in rows]


def figures_of(figures: dict) -> dict:
    return {name: value for name, value in figures.items() if name not in ("train_seconds", "tokens_per_s")}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> tuple[Crosscoder, dict, Path]:
    folder = tmp_path_factory.mktemp("one")
    return *fit_on_devices(make_run(), source, RunFolder(folder)), folder


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Crosscoder, dict, Path]:
    folder = tmp_path_factory.mktemp("two")
    return *fit_on_devices(make_run(shards=2), source, RunFolder(folder)), folder


@pytest.mark.slow
def test_two_shards_train_and_measure_what_one_process_does(one, two) -> None:
    (whole, figures, folder), (dealt, figures_of_two, folder_of_two) = one, two
    assert figures["dead_share"] > 0
    rows, rows_of_two = rows_of(folder), rows_of(folder_of_two)
    assert [row["step"] for row in rows_of_two] == [row["step"] for row in rows] == list(range(1, 61))
    for row, ours in zip(rows, rows_of_two, strict=True):
        assert ours["loss"] == pytest.approx(row["loss"], rel=1e-6)
        assert ours == pytest.approx(row, rel=1e-3, abs=1e-3, nan_ok=True)
    torch.testing.assert_close(dealt.decoder, whole.decoder, rtol=0, atol=3e-4)
    torch.testing.assert_close(dealt.threshold, whole.threshold, rtol=1e-4, atol=0)
    names = figures.keys() - {"train_seconds", "tokens_per_s", "delta_norm_histogram"}
    for name in names:
        assert figures_of_two[name] == pytest.approx(figures[name], rel=1e-3, abs=1e-3), name


@pytest.mark.slow
def test_a_rank_is_killed_then_all_of_them_and_no_bit_changes(
    two, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    folder = RunFolder(tmp_path / "run")
    for at, ranks in (("24", "1"), ("47", "01")):
        monkeypatch.setenv("KILL_AT", at)
        monkeypatch.setenv("KILL_RANKS", ranks)
        with pytest.raises(ValueError, match=r"process [01] of 2 was killed.*give the same command again"):
            fit_on_devices(make_run(shards=2), source, folder)
        assert len(list(folder.shards.glob("*.safetensors"))) == 2
    monkeypatch.delenv("KILL_AT")
    at_40 = Crosscoder.load(folder.shards)
    assert at_40.n_latents == 256
    shutil.copytree(folder.folder, tmp_path / "by one")
    again, figures = fit_on_devices(make_run(shards=2), source, folder)
    expected, expected_figures, undisturbed = two
    for name, tensor in expected.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert figures_of(figures) == figures_of(expected_figures)
    assert (folder.folder / "metrics.csv").read_text().count("\n") == 61
    capfd.readouterr()
    alone, _ = fit_on_devices(make_run(), source, RunFolder(tmp_path / "by one"))
    assert "goes on with training.shards=1 from a checkpoint of 2" in capfd.readouterr().err
    torch.testing.assert_close(alone.decoder, expected.decoder, rtol=0, atol=3e-4)
    assert rows_of(tmp_path / "by one")[-1]["step"] == 60
    assert undisturbed.is_dir()


def test_a_state_survives_its_way_through_json() -> None:
    state = {
        "a": [1, (2.5, None, True)],
        "optimizer_states": [{"state": {0: {"exp_avg": torch.arange(3.0)}}, "betas": (0.9, 0.999)}],
        "empty": {},
        "nan": float("nan"),
    }
    tensors: dict[str, torch.Tensor] = {}
    text = json.dumps(packed(state, tensors))
    assert list(tensors) == ["optimizer_states.0.state.0.exp_avg"]
    found = unpacked(json.loads(text), tensors)
    assert found.pop("nan") != state.pop("nan")
    assert (
        found["optimizer_states"][0]["state"][0]["exp_avg"] is tensors["optimizer_states.0.state.0.exp_avg"]
    )
    assert str(found) == str(state)
    with pytest.raises(TypeError, match="a.b of a checkpoint is a set"):
        packed({"a": {"b": {1}}}, {})


def test_a_folder_without_an_index_is_no_checkpoint_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    assert not check_sharded(tmp_path, {}, n_devices=1)
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(ValueError, match=f"remove it to train from the start: rm -r {tmp_path}"):
        check_sharded(tmp_path, {}, n_devices=1)


def test_a_second_save_of_a_step_that_breaks_off_leaves_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saving = ShardedCheckpoints(
        CrosscoderShard(DictionarySettings(n_latents=4), shard=Shard(0, 1, 4), n_models=2, d_model=3)
    )

    def save(value: float) -> None:
        about = {"identity": {}, "n_devices": 1, "global_step": 500}
        saving.save_checkpoint({**about, "tensor": torch.full((8,), value)}, tmp_path)

    def value() -> float:
        assert len(list(tmp_path.glob("*.safetensors"))) == 1
        return float(saving.load_checkpoint(tmp_path)["tensor"].mean())

    save(1.0)
    with monkeypatch.context() as patched:
        patched.setattr(shard_files, "write_block", lambda path, *_, **__: path.write_bytes(b"cut"))
        patched.setattr("crossdiff.training.shard_resume.wait_for_all_ranks", killed)
        with pytest.raises(KeyboardInterrupt):
            save(2.0)
    assert float(saving.load_checkpoint(tmp_path)["tensor"].mean()) == 1.0
    for again in (3.0, 4.0):
        save(again)
        assert value() == again


def test_the_result_has_an_index_only_after_all_blocks_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = [
        CrosscoderShard(DictionarySettings(n_latents=4), shard=Shard(index, 2, 4), n_models=2, d_model=3)
        for index in range(2)
    ]
    waits: list[str] = []

    def wait(among: str) -> None:
        """The first block's rank waits; the other one's writes meanwhile."""
        assert not (tmp_path / "index.json").exists()
        waits.append(among)
        if len(waits) == 1:
            save_block(blocks[1], tmp_path)

    monkeypatch.setattr("crossdiff.training.shard_resume.wait_for_ranks", wait)
    save_block(blocks[0], tmp_path)
    assert waits == ["shards", "shards"]
    assert Crosscoder.load(tmp_path).n_latents == 4


def test_a_whole_save_replaces_what_was_saved_with_shards(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    block = CrosscoderShard(DictionarySettings(n_latents=4), shard=Shard(0, 1, 4), n_models=2, d_model=3)
    state = {"identity": {}, "n_devices": 1, "global_step": 7}
    ShardedCheckpoints(block).save_checkpoint(state, folder.shards)
    whole = WholeOfShards()
    assert whole.load_checkpoint(folder.shards) == state
    whole.save_checkpoint(state, folder.checkpoint)
    assert [path.name for path in folder.checkpoint.parent.iterdir()] == ["last.ckpt"]


def killed() -> None:
    raise KeyboardInterrupt
