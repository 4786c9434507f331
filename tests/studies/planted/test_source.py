"""Planted activations as a source of training and scaling batches."""

from __future__ import annotations

import torch

from crossdiff.studies.planted.source import PlantedSource
from crossdiff.studies.planted.world import Planted, PlantedSettings

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
