"""The crosscoder at step 0: normaliser and decoder bias from the data, directions from the seed."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from crossdiff.core.axes import Activations, Bias
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.normaliser import Normaliser, geometric_median
from crossdiff.core.sparsity import JumpReLU, Sparsity
from crossdiff.training.settings import TrainingSettings
from crossdiff.training.source import ActivationSource, check_finite

STATISTICS_BATCHES = 50


def initial_crosscoder(
    source: ActivationSource,
    dictionary: DictionarySettings,
    *,
    sparsity: Sparsity,
    training: TrainingSettings,
    seed: int,
) -> Crosscoder:
    """A fresh crosscoder, a pure function of the source's rows, the settings and the seed."""
    differs = dictionary.architecture == "diff_sae"
    if differs and source.n_models != 2:
        raise ValueError(
            f"architecture=diff_sae reads the difference of 2 models, this source has {source.n_models}; "
            "choose architecture=standard"
        )
    first = source.training_batch(0, seed=seed, batch_size=training.batch_size)
    check_finite(first, source)
    crosscoder = Crosscoder(dictionary, n_models=1 if differs else source.n_models, d_model=source.d_model)
    mean, variance = _difference_statistics(source, training, seed) if differs else source.statistics()
    target = training.target_rms or math.sqrt(source.d_model)
    crosscoder.normaliser = Normaliser.from_statistics(mean.double(), variance.double(), target_rms=target)
    if isinstance(sparsity, JumpReLU):
        crosscoder.add_gate_(sparsity.initial_gate)
    xn = crosscoder.normaliser.normalise(crosscoder.inputs(first.x))
    generator = torch.Generator().manual_seed(seed)
    crosscoder.initialise_(generator, decoder_bias=_decoder_bias(xn, training))
    return crosscoder


def _decoder_bias(xn: Activations, training: TrainingSettings) -> Bias:
    match training.decoder_bias:
        case "zero":
            return torch.zeros_like(xn[0])
        case "mean":
            return xn.mean(dim=0)
        case "geometric_median":
            return torch.stack([geometric_median(points) for points in xn.unbind(dim=1)])


def _difference_statistics(
    source: ActivationSource, training: TrainingSettings, seed: int
) -> tuple[Tensor, Tensor]:
    """Float64 mean and variance of `x_tuned - x_base` over the first training batches."""
    total = torch.zeros(1, source.d_model, dtype=torch.float64)
    squares, n = torch.zeros_like(total), 0
    for number in range(min(STATISTICS_BATCHES, training.total_steps())):
        x = source.training_batch(number, seed=seed, batch_size=training.batch_size).x.double()
        difference = x[:, 1:2] - x[:, 0:1]
        total += difference.sum(dim=0)
        squares += difference.square().sum(dim=0)
        n += x.shape[0]
    mean = total / n
    return mean, squares / n - mean.square()
