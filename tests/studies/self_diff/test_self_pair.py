"""The null pair: equal but for small, fixed, independent noise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from crossdiff.data.paired_activations import PairedActivations
from crossdiff.studies.self_diff.self_pair import SelfPair
from tests.scaling_artifacts import LAYER, build


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
