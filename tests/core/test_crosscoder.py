import pytest
import torch

from crossdiff.core.crosscoder import LATENT_CHUNK, Crosscoder
from crossdiff.core.dictionary import DictionarySettings


def make(n_latents: int = 40, *, n_models: int = 2, d_model: int = 8, **settings) -> Crosscoder:
    crosscoder = Crosscoder(
        DictionarySettings(n_latents=n_latents, **settings), n_models=n_models, d_model=d_model
    )
    generator = torch.Generator().manual_seed(0)
    crosscoder.initialise_(generator)
    with torch.no_grad():
        crosscoder.encoder_bias.normal_(generator=generator)
        crosscoder.decoder_bias.normal_(generator=generator)
        crosscoder.normaliser.mean.normal_(generator=generator)
        crosscoder.normaliser.scale.uniform_(0.5, 2, generator=generator)
    return crosscoder


def activations(n_tokens: int = 7, *, n_models: int = 2, d_model: int = 8) -> torch.Tensor:
    return torch.randn(n_tokens, n_models, d_model, generator=torch.Generator().manual_seed(1))


def test_code_and_reconstruction_follow_the_equations_by_hand() -> None:
    crosscoder = Crosscoder(DictionarySettings(n_latents=2), n_models=2, d_model=1)
    with torch.no_grad():
        crosscoder.encoder.copy_(torch.tensor([[[1.0], [2.0]], [[-1.0], [0.0]]]))
        crosscoder.encoder_bias.copy_(torch.tensor([0.5, 0.0]))
        crosscoder.decoder.copy_(torch.tensor([[[3.0], [4.0]], [[1.0], [1.0]]]))
        crosscoder.decoder_bias.copy_(torch.tensor([[0.1], [0.2]]))
        crosscoder.normaliser.mean.copy_(torch.tensor([[1.0], [0.0]]))
        crosscoder.normaliser.scale.copy_(torch.tensor([2.0, 1.0]))
    code = crosscoder.encode(torch.tensor([[[2.0], [1.0]]]), threshold=0.0)
    # xn = (2, 1): pre = (2 + 2 + 0.5, -2); x_hat_n = 4.5 * (3, 4) + bias; raw = x / scale + mean
    torch.testing.assert_close(code, torch.tensor([[4.5, 0.0]]))
    torch.testing.assert_close(crosscoder.decode(code), torch.tensor([[[13.6 / 2 + 1.0], [18.2]]]))
    torch.testing.assert_close(crosscoder.scaled(code), torch.tensor([[4.5 * 7, 0.0]]))


def test_the_threshold_is_strict_and_compares_the_scaled_code() -> None:
    crosscoder = Crosscoder(DictionarySettings(n_latents=2), n_models=2, d_model=1)
    with torch.no_grad():
        crosscoder.encoder.copy_(torch.tensor([[[1.0], [0.0]], [[2.0], [0.0]]]))
        crosscoder.decoder.copy_(torch.tensor([[[3.0], [1.0]], [[0.5], [0.0]]]))
    x = torch.tensor([[[1.0], [0.0]]])  # f = (1, 2), v = (4, 1)
    torch.testing.assert_close(crosscoder.encode(x, threshold=1.0), torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(crosscoder.encode(x, threshold=0.99), torch.tensor([[1.0, 2.0]]))


def test_an_unset_threshold_is_an_error_at_inference() -> None:
    crosscoder = make()
    with pytest.raises(ValueError, match="threshold is not set"):
        crosscoder.encode(activations())
    with pytest.raises(ValueError, match="threshold is not set"):
        crosscoder.encode_sparse(activations())
    crosscoder.threshold.fill_(0.3)
    assert crosscoder.encode(activations()).shape == (7, 40)


def test_masked_weights_are_exactly_zero_from_the_start_and_after_any_update() -> None:
    crosscoder = make(40, architecture="dedicated_feature", dedicated_share=0.1)
    for part in (crosscoder.encoder, crosscoder.decoder):
        assert not bool(part[:4, 1].any())
        assert not bool(part[4:8, 0].any())
    assert torch.equal(crosscoder.encoder, crosscoder.decoder)
    moved = [torch.randn_like(part) for part in (crosscoder.encoder, crosscoder.decoder)]
    with torch.no_grad():
        for part, value in zip((crosscoder.encoder, crosscoder.decoder), moved, strict=True):
            part.copy_(value)
    crosscoder.constrain_()
    for part, value in zip((crosscoder.encoder, crosscoder.decoder), moved, strict=True):
        assert not bool(part[:4, 1].any())
        assert not bool(part[4:8, 0].any())
        assert torch.equal(part[8:], value[8:])
        assert torch.equal(part[:4, 0], value[:4, 0])


@pytest.mark.parametrize(
    "architecture", ["standard", "designated_shared", "dedicated_feature", "dedicated", "diff_sae"]
)
def test_sparse_encoding_and_decoding_equal_the_dense_ones(architecture: str) -> None:
    n_models = 1 if architecture == "diff_sae" else 2
    crosscoder = make(LATENT_CHUNK + 100, architecture=architecture, n_models=n_models)
    x = activations()
    code, entries = crosscoder.encode(x, threshold=1.5), crosscoder.encode_sparse(x, threshold=1.5)
    assert 0 < len(entries) < code.numel() / 2
    torch.testing.assert_close(entries.dense(), code)
    order = entries.token * crosscoder.n_latents + entries.latent
    assert bool((order[1:] > order[:-1]).all())
    torch.testing.assert_close(crosscoder.decode(entries), crosscoder.decode(code), rtol=1e-4, atol=1e-4)


def test_a_token_without_any_active_latent_decodes_to_the_bias() -> None:
    crosscoder = make()
    x = activations()
    entries = crosscoder.encode_sparse(x, threshold=1e9)
    assert len(entries) == 0
    raw_bias = crosscoder.normaliser.denormalise(crosscoder.decoder_bias[None].expand(7, -1, -1))
    torch.testing.assert_close(crosscoder.decode(entries), raw_bias)


def test_the_start_has_equal_directions_in_all_models_and_unit_norm_over_them() -> None:
    crosscoder = Crosscoder(DictionarySettings(n_latents=50, initial_norm=0.3), n_models=3, d_model=8)
    crosscoder.initialise_(torch.Generator().manual_seed(0))
    torch.testing.assert_close(crosscoder.decoder.norm(dim=(1, 2)), torch.full((50,), 0.3))
    torch.testing.assert_close(crosscoder.decoder[:, 0], crosscoder.decoder[:, 2])
    torch.testing.assert_close(crosscoder.encoder, crosscoder.decoder)


def test_diff_sae_reads_and_reconstructs_the_difference() -> None:
    crosscoder = make(architecture="diff_sae", n_models=1)
    x = activations()
    shifted = x + torch.randn(7, 1, 8)
    torch.testing.assert_close(
        crosscoder.encode(x, threshold=0.0), crosscoder.encode(shifted, threshold=0.0), rtol=1e-4, atol=1e-4
    )
    assert crosscoder.decode(crosscoder.encode(x, threshold=0.0)).shape == (7, 1, 8)


def test_a_gate_silences_codes_below_it() -> None:
    crosscoder = make()
    x = activations()
    free = crosscoder.encode(x, threshold=0.0)
    crosscoder.add_gate_(1.0)
    torch.testing.assert_close(crosscoder.encode(x, threshold=0.0), torch.where(free > 1.0, free, 0.0))


def test_designated_latents_cost_less_in_the_ranking() -> None:
    plain, cheap = (
        make(),
        make(architecture="designated_shared", designated_share=0.25, designated_weight=0.2),
    )
    torch.testing.assert_close(cheap.code_norm()[:10], plain.code_norm()[:10] * 5)
    torch.testing.assert_close(cheap.code_norm()[10:], plain.code_norm()[10:])
