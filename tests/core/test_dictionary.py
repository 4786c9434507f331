import pytest
import torch

from crossdiff.core.dictionary import (
    DictionarySettings,
    project_,
    project_encoder_,
    tied_latents,
    writes_to,
)


def test_dedicated_latents_write_to_one_model_and_the_rest_is_tied() -> None:
    settings = DictionarySettings(n_latents=100, architecture="dedicated", dedicated_share=0.05)
    directions = torch.randn(100, 2, 3)
    project_(directions, settings)
    assert bool((directions[:5, 1] == 0).all())
    assert bool((directions[5:10, 0] == 0).all())
    assert torch.equal(directions[10:, 0], directions[10:, 1])
    assert bool((directions[:5, 0] != 0).all())
    assert writes_to(settings, n_models=2).sum() == 190
    assert tied_latents(settings) == slice(10, 100)


def test_dedicated_features_read_and_write_one_model_and_the_rest_is_free() -> None:
    settings = DictionarySettings(n_latents=100, architecture="dedicated_feature", dedicated_share=0.05)
    for project in (project_, project_encoder_):
        directions = torch.randn(100, 2, 3)
        free = directions[10:].clone()
        project(directions, settings)
        assert bool((directions[:5, 1] == 0).all())
        assert bool((directions[5:10, 0] == 0).all())
        assert torch.equal(directions[10:], free)
    assert tied_latents(settings) == slice(0, 0)


def test_the_tied_form_has_two_names_and_one_key() -> None:
    tied = DictionarySettings.model_validate({"n_latents": 9, "architecture": "dedicated_tied"})
    assert tied == DictionarySettings(n_latents=9, architecture="dedicated")


@pytest.mark.parametrize("architecture", ["standard", "designated_shared", "dedicated_feature", "dedicated"])
def test_projection_is_orthogonal(architecture: str) -> None:
    """P P x = P x and <P x, y> = <x, P y>, so a projected gradient descends steepest inside."""
    settings = DictionarySettings(n_latents=30, architecture=architecture)  # type: ignore[arg-type]
    x, y = torch.randn(2, 30, 2, 4, dtype=torch.float64)
    px, py = x.clone(), y.clone()
    project_(px, settings)
    project_(py, settings)
    again = px.clone()
    project_(again, settings)
    torch.testing.assert_close(again, px)
    torch.testing.assert_close((px * y).sum(), (x * py).sum())


def test_too_many_dedicated_latents_are_refused() -> None:
    settings = DictionarySettings(n_latents=9, architecture="dedicated", dedicated_share=0.4)
    with pytest.raises(ValueError, match="leaves no shared latent"):
        writes_to(settings, n_models=3)
