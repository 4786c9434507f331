"""The self-diff null on a small finished harvest."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.sparsity import BatchTopK
from crossdiff.data.paired_activations import PairedActivations
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


@pytest.fixture
def null(tmp_path: Path) -> SelfPair:
    parents = build(tmp_path).parents
    harvests = [parents["harvest_base"], parents["harvest_tuned"]]
    return SelfPair(PairedActivations.open(parents["tokens"], harvests, layer=LAYER), noise=0.01, seed=3)


def test_both_models_are_the_same_but_for_one_percent_of_independent_noise(null: SelfPair) -> None:
    x = torch.cat([batch.x for batch in null.batches(batch_size=500)])
    clean = torch.cat([batch.x for batch in null.activations.batches(batch_size=500)])[:, 0]
    noise = (x - clean[:, None]) / null.deviation.float()
    assert noise.std(dim=(0, 2)).tolist() == pytest.approx([0.01, 0.01], rel=0.03)
    assert abs(float(torch.corrcoef(noise.transpose(0, 1).flatten(1))[0, 1])) < 0.03
    assert abs(float(noise.mean())) < 3e-4


def test_the_noise_is_normal_and_the_copies_are_independent(null: SelfPair) -> None:
    z = null._normal(torch.arange(100_000, 140_000)).double()
    base, tuned = z.transpose(0, 1).flatten(1)
    for values in (base, tuned):
        ordered = values.sort().values
        expected = torch.special.ndtri((torch.arange(len(values)) + 0.5) / len(values))
        assert float((ordered - expected)[1000:-1000].abs().max()) < 0.03
        assert float(values.abs().max()) < 6
    for left, right in ((base, tuned), (base.square(), tuned.square()), (base.square(), tuned)):
        assert abs(float(torch.corrcoef(torch.stack([left, right]))[0, 1])) < 0.008
    neighbours = torch.corrcoef(torch.stack([z[:-1].flatten(), z[1:].flatten()]))[0, 1]
    assert abs(float(neighbours)) < 0.008


def test_a_row_has_the_same_noise_in_every_pass(null: SelfPair) -> None:
    rows = torch.tensor([70, 5, 1300])
    again = null.read(rows).x
    assert torch.equal(null.read(rows.flip(0)).x, again.flip(0))
    batch = null.training_batch(3, seed=0, batch_size=100)
    assert torch.equal(null.read(batch.row).x, batch.x)


def test_statistics_include_the_noise(null: SelfPair) -> None:
    mean, variance = null.statistics()
    x = torch.cat([null.read(null.rows("train")).x]).double()
    assert torch.allclose(mean, x.mean(0), atol=5e-3)
    assert torch.allclose(variance, x.var(0, correction=0), rtol=1e-2)
