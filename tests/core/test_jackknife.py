"""Intervals over documents: by hand, and their coverage on planted activations."""

from __future__ import annotations

import pytest
import torch

from crossdiff.core.active_products import gram
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.jackknife import T_95, intervals, jackknife, ratios, student
from crossdiff.core.latent_scaling import ScalingSums, betas
from crossdiff.core.latent_table import BASE, ERROR, RECONSTRUCTION, TUNED
from crossdiff.organisms.planted import Planted, PlantedSettings


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    # groups 1, 2, 3, 4, 5 of one value each: mean 3, se = sqrt(2.5 / 5); leave-one-out means by hand
    without = torch.tensor([[3.5], [3.25], [3.0], [2.75], [2.5]], dtype=torch.float64)
    low, high = jackknife(torch.tensor([3.0], dtype=torch.float64), without, used=5, fired=torch.tensor([5]))
    deviations = torch.tensor([0.25, 0.0625, 0.0, 0.0625, 0.25]).double()
    freedom = 3 * deviations.sum() ** 2 / deviations.square().sum()
    assert float(freedom) > 4  # so at most G - 1 = 4
    half = T_95[3] * 0.5**0.5
    assert float(low) == pytest.approx(3 - half, abs=1e-9)
    assert float(high) == pytest.approx(3 + half, abs=1e-9)


def test_too_few_groups_give_no_interval() -> None:
    without = torch.zeros(20, 1, dtype=torch.float64)
    low, high = jackknife(torch.zeros(1, dtype=torch.float64), without, used=20, fired=torch.tensor([4]))
    assert low.isnan().all()
    assert high.isnan().all()


def test_student_passes_through_the_tabled_quantiles_and_falls_between_them() -> None:
    found = student(torch.arange(1, 20, dtype=torch.float64))
    assert torch.allclose(found, torch.tensor(T_95, dtype=torch.float64))
    between = student(torch.tensor([4.5], dtype=torch.float64))
    assert float(between) == pytest.approx(2.659, abs=0.01)  # scipy.stats.t.ppf(0.975, 4.5)


def test_a_group_without_documents_does_not_count() -> None:
    without = torch.tensor([[3.5], [3.25], [3.0], [2.75], [2.5]], dtype=torch.float64)
    padded = torch.cat([without, torch.full((15, 1), 3.0, dtype=torch.float64)])
    estimate, fired = torch.tensor([3.0], dtype=torch.float64), torch.tensor([5])
    for name, other in zip(
        jackknife(estimate, without, used=5, fired=fired),
        jackknife(estimate, padded, used=5, fired=fired),
        strict=True,
    ):
        assert torch.allclose(name, other)


def oracle(planted: Planted) -> Crosscoder:
    """The planted directions as decoder, read off by the same directions; threshold at half a unit."""
    settings = planted.settings
    directions = planted.directions * torch.tensor(settings.scales)[:, None]
    found = Crosscoder(DictionarySettings(n_latents=len(directions)), n_models=2, d_model=settings.d_model)
    with torch.no_grad():
        found.decoder.copy_(directions)
        found.encoder.copy_(directions / directions.square().sum(dim=(1, 2), keepdim=True))
        found.normaliser.mean.copy_(planted.mean * torch.tensor(settings.scales)[:, None])
        found.threshold.fill_(1.5)
    return found.requires_grad_(requires_grad=False)


@pytest.mark.slow
def test_intervals_cover_the_value_on_a_hundred_times_the_tokens() -> None:
    counts = {f"n_{kind}": 8 for kind in ("shared", "rotated", "base_only", "tuned_only", "shrunken")}
    settings = PlantedSettings(
        d_model=48, n_decoupled=8, frequencies=(0.05, 0.02), document_length=32, **counts
    )
    planted, n_documents, n_samples = Planted(settings, seed=0), 256, 100
    crosscoder = oracle(planted)
    samples = [ScalingSums(crosscoder.n_latents, 2) for _ in range(n_samples)]
    for i, sums in enumerate(samples):
        for batch in planted.batches(first=i * n_documents, n_documents=n_documents, per_batch=128):
            sums.add(crosscoder, batch.x, document=batch.document)
    products = gram(crosscoder.decoder)
    energy, overlap = (sum(getattr(s, name) for s in samples) for name in ("energy", "overlap"))
    truth = ratios(betas(energy.sum(0), overlap.sum(-2), products))
    for target in (ERROR, RECONSTRUCTION):
        inside = []
        for sums in samples:
            bounds, known = intervals(sums, products), sums.documents.counts() >= 30
            low, high = (b[target, TUNED, BASE] for b in (bounds.nu_low, bounds.nu_high))
            known &= ~low.isnan()
            inside.append(((low <= truth[target, TUNED, BASE]) & (truth[target, TUNED, BASE] <= high))[known])
        covered = torch.cat(inside).double()
        assert len(covered) > 500
        assert 0.93 <= float(covered.mean()) <= 0.97
