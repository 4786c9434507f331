"""The self-diff null on a small finished harvest."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.sparsity import BatchTopK
from crossdiff.io.tables import read_json, read_table
from crossdiff.settings import Runtime
from crossdiff.stages.train import TrainInputs
from crossdiff.studies.self_diff.self_pair import SelfPair
from crossdiff.studies.self_diff.step import SelfDiffInputs, per_1000_alive, run
from crossdiff.training.settings import TrainingSettings
from tests.scaling_artifacts import LAYER, build


def inputs() -> SelfDiffInputs:
    training = TrainingSettings(n_steps=30, batch_size=256, learning_rate=3e-3, warmup_steps=5)
    train = TrainInputs(
        layer=LAYER, dictionary=DictionarySettings(n_latents=32), sparsity=BatchTopK(k=4), training=training
    )
    return SelfDiffInputs(train=train)


def test_one_harvest_stands_for_both_models_and_the_table_is_that_of_a_pair(tmp_path: Path) -> None:
    parents = build(tmp_path / "parents").parents
    draft = tmp_path / "draft"
    draft.mkdir()
    only = {name: parents[name] for name in ("tokens", "harvest_base")}
    found = run(inputs(), only, draft, Runtime(progress=False))
    table = read_table(draft / "latents.parquet", kind="latents")
    assert len(table) == 32
    assert read_json(draft / "self_diff.json")["per_1000_alive"] == found["per_1000_alive"]
    assert found["n_exclusive_tuned"] == int((table["exclusive_to"] == "tuned").sum())
    # equal copies are explained equally well
    assert found["fve_base"] == pytest.approx(found["fve_tuned"], abs=0.05)


def test_a_scaling_that_died_does_not_cost_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parents = build(tmp_path / "parents").parents
    only = {name: parents[name] for name in ("tokens", "harvest_base")}
    draft = tmp_path / "draft"
    draft.mkdir()
    found = run(inputs(), only, draft, Runtime(progress=False))
    (draft / "latents.parquet").unlink()
    (draft / "self_diff.json").unlink()
    monkeypatch.setattr(SelfPair, "training_batch", lambda *_, **__: pytest.fail("trained again"))
    assert run(inputs(), only, draft, Runtime(progress=False)) == found
    assert (draft / "latents.parquet").is_file()


def test_the_copies_start_with_independent_directions() -> None:
    dictionary = inputs().training().dictionary
    crosscoder = Crosscoder(dictionary, n_models=2, d_model=64)
    crosscoder.initialise_(torch.Generator().manual_seed(0))
    base, tuned = crosscoder.decoder.unbind(dim=1)
    cosine = torch.nn.functional.cosine_similarity(base, tuned)
    assert cosine.abs().mean() < 0.2
    assert crosscoder.decoder.norm(dim=(1, 2)).tolist() == pytest.approx([1.0] * 32)


def test_the_rate_counts_both_sides_and_is_missing_where_nothing_lives() -> None:
    assert per_1000_alive({"n_exclusive_tuned": 2, "n_exclusive_base": 1, "n_alive": 1500}) == 2.0
    assert per_1000_alive({"n_exclusive_tuned": 0, "n_exclusive_base": 0, "n_alive": 0}) is None
