"""The planted generative model: frequencies, norms, scales and likeness inside documents are as set."""

from __future__ import annotations

import pytest
import torch

from crossdiff.studies.planted.settings import PlantedSettings
from crossdiff.studies.planted.world import BASE, TUNED, Planted, PlantedBatch

SETTINGS = PlantedSettings(
    d_model=24, n_shared=8, n_rotated=4, n_base_only=4, n_tuned_only=8, n_shrunken=4, n_decoupled=4
)


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted(SETTINGS, seed=3)


@pytest.fixture(scope="module")
def tokens(planted: Planted) -> PlantedBatch:
    return planted.tokens(first=0, n_documents=1600)


def test_every_kind_has_its_norms_and_angles(planted: Planted) -> None:
    norms = planted.directions.norm(dim=2)
    assert torch.allclose(norms[planted.of("shared")], torch.ones(8, 2))
    assert norms[planted.of("tuned_only"), BASE].abs().max() == 0
    assert norms[planted.of("base_only"), TUNED].abs().max() == 0
    assert torch.allclose(norms[planted.of("shrunken"), BASE], torch.full((4,), 0.4))
    cosine = torch.nn.functional.cosine_similarity(*planted.directions.unbind(dim=1))
    assert torch.allclose(cosine[planted.of("rotated")], torch.full((4,), 0.5), atol=1e-5)


def test_latents_fire_at_their_frequencies_and_some_in_pairs(planted: Planted, tokens: PlantedBatch) -> None:
    active = (tokens.code > 0).double()
    for frequency in SETTINGS.frequencies:
        chosen = planted.frequency == frequency
        assert float(active[:, chosen].mean()) == pytest.approx(frequency, rel=0.12)
    together = (active[:, 0] * active[:, 1]).mean()
    assert float(together) > 5 * float(active[:, 0].mean() * active[:, 1].mean())


def test_models_have_their_own_scale_and_tokens_of_a_document_are_alike(tokens: PlantedBatch) -> None:
    spread = (tokens.x - tokens.x.mean(dim=0)).square().sum(dim=(0, 2)).sqrt()
    assert float(spread[TUNED] / spread[BASE]) == pytest.approx(3, rel=0.15)
    fires = (tokens.code > 0).view(1600, 64, -1).any(dim=1).double().mean(dim=0)
    assert float(fires.max()) < 0.32  # topical: inside a quarter of the documents


def test_documents_are_a_function_of_their_number(planted: Planted, tokens: PlantedBatch) -> None:
    again = next(planted.batches(first=32, n_documents=32))
    assert torch.equal(again.x, tokens.x[32 * 64 : 64 * 64])
    assert again.document.unique().tolist() == list(range(32, 64))
    other = Planted(SETTINGS, seed=4)
    assert not torch.equal(other.directions, planted.directions)


def test_the_plain_world_has_the_identity_it_had_before_there_was_another() -> None:
    plain = PlantedSettings()
    assert {"world", "strength_spread", "parent_share"}.isdisjoint(plain.identity())
    hard = PlantedSettings(world="hard")
    assert hard.identity()["parent_share"] == 0.5
    assert PlantedSettings.model_validate(hard.model_dump()) == hard
    assert PlantedSettings(world="hard", scales=(1.0, 2.0)).scales == (1.0, 2.0)


def test_children_fire_at_their_frequency_and_only_where_their_parent_does() -> None:
    settings = PlantedSettings(
        world="hard", d_model=8, n_shared=8, n_rotated=0, n_base_only=0, n_tuned_only=8, n_shrunken=0,
        n_decoupled=2, frequencies=(0.05, 0.02), parent_share=1.0, correlated_share=0,
    )  # fmt: skip
    planted = Planted(settings, seed=1)
    active = planted.tokens(first=0, n_documents=1600).code > 0
    assert sorted(planted.parent) == (planted.frequency < 0.05).nonzero().flatten().tolist()
    for child, parent in planted.parent.items():
        assert not (active[:, child] & ~active[:, parent]).any()
    children = active[:, list(planted.parent)].double().mean()
    assert float(children) == pytest.approx(0.02, rel=0.1)
