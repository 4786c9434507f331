"""A crosscoder over three models on small finished harvests."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.sparsity import BatchTopK
from crossdiff.io.tables import read_json, read_table
from crossdiff.settings import Runtime
from crossdiff.stages.train import TrainInputs
from crossdiff.studies.several.step import SeveralInputs, run
from crossdiff.training.settings import TrainingSettings
from tests.scaling_artifacts import LAYER, build


def test_three_harvests_make_one_crosscoder_and_a_row_per_latent_and_model(tmp_path: Path) -> None:
    found = build(tmp_path / "parents").parents
    parents = {
        "tokens": found["tokens"],
        "harvest_base": found["harvest_base"],
        "harvest_tuned_1": found["harvest_tuned"],
        "harvest_tuned_2": found["harvest_tuned"],
    }
    training = TrainingSettings(n_steps=30, batch_size=256, learning_rate=3e-3, warmup_steps=5)
    train = TrainInputs(
        layer=LAYER, dictionary=DictionarySettings(n_latents=32), sparsity=BatchTopK(k=4), training=training
    )
    draft = tmp_path / "draft"
    draft.mkdir()
    run(SeveralInputs(train=train, models=("pt", "it", "simpo")), parents, draft, Runtime(progress=False))
    assert Crosscoder.load(draft / "crosscoder").n_models == 3
    table = read_table(draft / "latents.parquet", kind="latents_by_model")
    assert len(table) == 3 * 32
    record = read_json(draft / "several.json")
    assert set(record["exclusive"]) == set(record["fve"]) == {"pt", "it", "simpo"}
    # the second and the third model are one and the same
    assert record["fve"]["it"] == pytest.approx(record["fve"]["simpo"], rel=1e-4)
    assert record["exclusive"]["it"]["simpo"] == record["exclusive"]["simpo"]["it"] == 0
