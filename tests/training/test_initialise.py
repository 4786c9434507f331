import math

import pytest
import torch

from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.sparsity import BatchTopK, JumpReLU
from crossdiff.training.initialise import initial_crosscoder
from crossdiff.training.settings import TrainingSettings
from tests.planted_source import PlantedSource

TRAINING = TrainingSettings(n_steps=50, batch_size=200)


def start(source: PlantedSource, *, sparsity=BatchTopK(k=4), training=TRAINING, seed: int = 0, **settings):  # noqa: B008
    dictionary = DictionarySettings(n_latents=64, **settings)
    return initial_crosscoder(source, dictionary, sparsity=sparsity, training=training, seed=seed)


def test_normalised_training_activations_have_rms_norm_sqrt_d_model(planted: PlantedSource) -> None:
    xn = start(planted).normaliser.normalise(planted.x[planted.rows("train")])
    rms = xn.square().sum(2).mean(0).sqrt()
    torch.testing.assert_close(rms, torch.full((2,), math.sqrt(32)), rtol=1e-4, atol=0)


def test_the_difference_is_scaled_by_its_own_statistics(planted: PlantedSource) -> None:
    crosscoder = start(planted, architecture="diff_sae")
    xn = crosscoder.normaliser.normalise(crosscoder.inputs(planted.x[planted.rows("train")]))
    assert xn.shape[1] == crosscoder.n_models == 1
    assert float(xn.square().sum(2).mean().sqrt()) == pytest.approx(math.sqrt(32), rel=0.02)


def test_the_decoder_bias_starts_at_the_centre_of_the_first_batch(planted: PlantedSource) -> None:
    training = TRAINING.model_copy(update={"decoder_bias": "mean"})
    crosscoder = start(planted, training=training)
    first = planted.training_batch(0, seed=0, batch_size=200).x
    torch.testing.assert_close(crosscoder.decoder_bias.data, crosscoder.normaliser.normalise(first).mean(0))
    zero = start(planted, training=TRAINING.model_copy(update={"decoder_bias": "zero"}))
    assert not bool(zero.decoder_bias.any())


def test_the_start_is_a_function_of_the_seed(planted: PlantedSource) -> None:
    assert torch.equal(start(planted).decoder, start(planted).decoder)
    assert not torch.equal(start(planted).decoder, start(planted, seed=1).decoder)


def test_jumprelu_starts_with_its_gate(planted: PlantedSource) -> None:
    gate = start(planted, sparsity=JumpReLU(penalty=1.0, initial_gate=0.25)).log_gate
    assert gate is not None
    torch.testing.assert_close(gate.exp(), torch.full((64,), 0.25))


def test_a_difference_of_three_models_is_refused() -> None:
    with pytest.raises(ValueError, match="reads the difference of 2 models, this source has 3"):
        start(PlantedSource(n_rows=500, n_models=3), architecture="diff_sae")
