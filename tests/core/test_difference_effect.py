"""Signs of a difference dictionary's latents: by hand, against the definition, however the stream is cut."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.difference_effect import BASE, TUNED, EffectSums, effects


def dictionary(directions: Tensor, *, threshold: float = 0.5, architecture: str = "diff_sae") -> Crosscoder:
    """Encoder and decoder are the given directions; activations are not scaled."""
    settings = DictionarySettings(n_latents=len(directions), architecture=architecture)  # type: ignore[arg-type]
    found = Crosscoder(settings, n_models=1, d_model=directions.shape[1])
    with torch.no_grad():
        found.decoder.copy_(directions[:, None])
        found.encoder.copy_(directions[:, None])
        found.threshold.fill_(threshold)
    return found


def sums_of(crosscoder: Crosscoder, x: Tensor, document: Tensor, cuts: tuple[int, ...] = ()) -> EffectSums:
    sums = EffectSums.empty(crosscoder, documents=True)
    for start, end in zip((0, *cuts), (*cuts, len(x)), strict=True):
        sums.add(crosscoder, x[start:end], document=document[start:end])
    return sums


def test_shifts_and_effects_by_hand() -> None:
    """Tuned adds 2 along the first direction; base loses 3 along the second; the third turns from -1 to 3."""
    crosscoder = dictionary(torch.tensor([[1.0, 0, 0], [0, -1, 0], [0, 0, 1]]))
    x = torch.zeros(8, 2, 3)
    x[0:2, TUNED, 0] = 2
    x[2:4, BASE, 1] = 3
    x[4:6, BASE, 2], x[4:6, TUNED, 2] = -1, 3
    x += torch.tensor([5.0, -7.0, 11.0])  # both models' means move nothing
    found = effects(crosscoder.decoder.detach().double(), sums_of(crosscoder, x, torch.arange(8)))
    assert found.shift[TUNED].tolist() == pytest.approx([2, 0, 3])
    assert found.shift[BASE].tolist() == pytest.approx([0, -3, -1])
    assert found.effect.tolist() == pytest.approx([1, -1, 2 / 3])
    assert found.follows.all()


@pytest.fixture
def drawn() -> tuple[Crosscoder, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    directions = normalize(torch.randn(12, 6, generator=generator)) * 1.7
    return (
        dictionary(directions),
        torch.randn(600, 2, 6, generator=generator),
        torch.arange(600) // 10,
    )


def test_shifts_equal_the_definition(drawn: tuple[Crosscoder, Tensor, Tensor]) -> None:
    crosscoder, x, document = drawn
    found = effects(crosscoder.decoder.detach().double(), sums_of(crosscoder, x, document))
    fires = crosscoder.encode(x) > 0
    unit = normalize(crosscoder.decoder[:, 0]).double()
    for j in range(12):
        along = x.double() @ unit[j]
        expected = along[fires[:, j]].mean(0) - along[~fires[:, j]].mean(0)
        torch.testing.assert_close(found.shift[:, j], expected.detach(), rtol=1e-6, atol=1e-8)


def test_cuts_and_merges_change_nothing(drawn: tuple[Crosscoder, Tensor, Tensor]) -> None:
    crosscoder, x, document = drawn
    whole, cut = sums_of(crosscoder, x, document), sums_of(crosscoder, x, document, cuts=(7, 123, 400))
    first, second = sums_of(crosscoder, x[:250], document[:250]), sums_of(crosscoder, x[250:], document[250:])
    first.merge(second)
    for other in (cut, first):
        assert other.n_tokens == whole.n_tokens == 600
        for name in (*EffectSums.ADDED, "maximum"):
            torch.testing.assert_close(getattr(other, name), getattr(whole, name), rtol=1e-5, atol=1e-5)
        assert other.documents.counts().tolist() == whole.documents.counts().tolist()
        assert other.fit is not None
        assert whole.fit is not None
        assert other.fit.explained() == pytest.approx(whole.fit.explained())


def test_what_is_no_trained_difference_dictionary_is_refused(
    drawn: tuple[Crosscoder, Tensor, Tensor],
) -> None:
    crosscoder, x, document = drawn
    with pytest.raises(ValueError, match="reads the difference of"):
        sums_of(crosscoder, x[:, :1], document)
    crosscoder.threshold.fill_(float("nan"))
    with pytest.raises(ValueError, match="train it to the end"):
        sums_of(crosscoder, x, document)
    with pytest.raises(ValueError, match="called by latent scaling"):
        sums_of(dictionary(torch.eye(6), architecture="standard"), x, document)
