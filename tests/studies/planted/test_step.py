"""The planted stage at a small size, and the whole claim at its full size (slow)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.settings import Runtime
from crossdiff.studies.planted import PlantedTruth
from crossdiff.studies.planted.settings import PlantedSettings
from crossdiff.studies.planted.step import (
    PlantedInputs,
    contenders,
    latest_contenders,
    newer_contenders,
    run,
)
from crossdiff.studies.planted.world import Planted, PlantedSource
from crossdiff.training.settings import TrainingSettings

QUIET = Runtime(progress=False)
SMALL = PlantedSettings(
    d_model=16, n_shared=12, n_rotated=2, n_base_only=2, n_tuned_only=4, n_shrunken=2, n_decoupled=2,
    document_length=16,
)  # fmt: skip


def inputs() -> PlantedInputs:
    training = TrainingSettings(n_steps=20, batch_size=128, learning_rate=3e-3, warmup_steps=5)
    kinds = tuple(kind for kind in contenders(n_latents=32, k=3) if kind.name in ("batch_topk", "l1"))
    return PlantedInputs(
        planted=SMALL, contenders=kinds, training=training, n_documents=80, n_scaling_documents=40
    )


def test_every_kind_is_trained_scaled_and_scored_and_a_killed_run_goes_on(tmp_path: Path) -> None:
    run(inputs(), {}, tmp_path, QUIET)
    rows = pd.read_csv(tmp_path / "planted.csv")
    assert rows["contender"].tolist() == ["l1", "batch_topk"]
    assert rows["scaling_f1_all"].between(0, 1).all()
    assert Crosscoder.load(tmp_path / "l1" / "crosscoder").n_latents == 32
    assert (tmp_path / "batch_topk" / "latents.parquet").is_file()
    weights = tmp_path / "l1" / "crosscoder" / "weights.safetensors"
    written = weights.stat().st_mtime_ns
    (tmp_path / "batch_topk" / "scores.json").unlink()  # as if killed before the second was scored
    run(inputs(), {}, tmp_path, QUIET)
    assert weights.stat().st_mtime_ns == written
    assert (
        pd.read_csv(tmp_path / "planted.csv")
        .drop(columns="train_seconds")
        .equals(rows.drop(columns="train_seconds"))
    )


def test_all_six_kinds_take_part() -> None:
    names = [kind.name for kind in contenders()]
    assert names == ["l1", "topk", "batch_topk", "designated_shared", "dedicated", "jumprelu"]
    assert [kind.name for kind in newer_contenders()] == ["dedicated_feature", "mixed_loss"]
    assert [kind.training(TrainingSettings(n_steps=1)).loss for kind in latest_contenders()] == ["squared"]
    assert "loss_mix" not in contenders()[0].identity()
    asked = TrainingSettings(n_steps=1)
    trained = [kind.training(asked) for kind in newer_contenders()]
    assert [(t.loss, t.loss_mix) for t in trained] == [("norm", 0), ("squared", -0.5)]


def test_newer_kinds_have_steps_of_their_own_so_that_the_first_keep_their_keys() -> None:
    def extras(*only: str) -> dict:
        return dict(PlantedTruth(seeds=(3,), only=only).extras(None))  # type: ignore[arg-type]

    assert list(extras()) == ["seed_3", "seed_3_newer", "seed_3_latest"]
    assert list(extras("jumprelu", "l1")) == ["seed_3"]
    assert [kind.name for kind in extras("jumprelu", "l1")["seed_3"].inputs.contenders] == ["jumprelu", "l1"]
    assert list(extras("dedicated_feature")) == ["seed_3_newer"]
    assert list(extras("delta", "l1")) == ["seed_3", "seed_3_latest"]
    with pytest.raises(ValueError, match=r"choose from l1, .*dedicated_feature, .*delta"):
        extras("nothing")


@pytest.mark.slow
def test_latent_scaling_finds_frequent_and_rare_tuned_only_latents(tmp_path: Path) -> None:
    """One seed of `python run.py experiment=planted`, BatchTopK alone."""
    step = PlantedTruth(seeds=(0,), only=("batch_topk",)).extras(None)["seed_0"]  # type: ignore[arg-type]
    run(step.inputs, {}, tmp_path, QUIET)  # type: ignore[arg-type]
    row = pd.read_csv(tmp_path / "planted.csv").iloc[0]
    assert row["scaling_f1_frequent"] >= 0.95
    assert row["scaling_f1_rare"] >= 0.85


SETTINGS = PlantedSettings(
    d_model=8,
    n_shared=4,
    n_rotated=0,
    n_base_only=0,
    n_tuned_only=2,
    n_shrunken=0,
    n_decoupled=0,
    document_length=4,
)


def test_splits_statistics_and_addressed_batches() -> None:
    source = PlantedSource(Planted(SETTINGS, seed=0), n_documents=60)
    assert len(source.rows()) == 240
    assert len(source.rows("validation")) == 3 * 4  # documents 0, 20 and 40
    mean, variance = source.statistics()
    x = source.x[source.rows("train")].double()
    assert torch.allclose(mean, x.mean(0))
    assert torch.allclose(variance, x.var(0, correction=0))
    batch = source.training_batch(5, seed=1, batch_size=50)
    assert torch.equal(source.training_batch(5, seed=1, batch_size=50).x, batch.x)
    assert not set(batch.document.tolist()) & {0, 20, 40}
    epoch = torch.cat([source.training_batch(n, seed=1, batch_size=57).row for n in range(4)])
    assert len(epoch.unique()) == 228
