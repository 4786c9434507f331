import math

import pytest
import torch

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.sparsity import BatchTopK
from crossdiff.training.evaluation import ExplainedVariance, evaluate
from crossdiff.training.held_out import held_out_batches
from crossdiff.training.initialise import initial_crosscoder
from crossdiff.training.settings import TrainingSettings
from tests.planted_source import PlantedSource


def untrained(source: PlantedSource) -> Crosscoder:
    return initial_crosscoder(
        source,
        DictionarySettings(n_latents=64),
        sparsity=BatchTopK(k=4),
        training=TrainingSettings(n_steps=1, batch_size=100),
        seed=0,
    )


def test_explained_variance_equals_its_definition_and_does_not_depend_on_batching() -> None:
    x = torch.randn(40, 2, 5) * 3 + 1000
    x_hat = x + torch.randn(40, 2, 5)
    sums = ExplainedVariance(torch.full((2, 5), 990.0))
    for part in (slice(0, 13), slice(13, 40)):
        sums.add(x[part], x_hat[part])
    wide, wide_hat = x.double(), x_hat.double()
    total = (wide - wide.mean(0)).square().sum((0, 2))
    expected = 1 - (wide - wide_hat).square().sum((0, 2)) / total
    assert sums.value() == pytest.approx(expected.tolist(), rel=1e-6)


def test_the_mean_explains_nothing_and_tokens_that_do_not_vary_have_no_figure() -> None:
    x = torch.randn(100, 1, 3)
    sums = ExplainedVariance(torch.zeros(1, 3))
    sums.add(x, x.mean(0, keepdim=True).expand_as(x))
    assert sums.value() == pytest.approx([0.0], abs=1e-6)
    constant = ExplainedVariance(torch.ones(1, 3))
    constant.add(torch.ones(10, 1, 3), torch.zeros(10, 1, 3))
    assert math.isnan(constant.value()[0])


def test_held_out_figures_of_a_crosscoder_agree_with_dense_encoding(planted: PlantedSource) -> None:
    crosscoder = untrained(planted)
    batches = list(held_out_batches(planted, batch_size=100, device=torch.device("cpu")))
    found = evaluate(crosscoder, batches, threshold=2.0, k=4)
    x = planted.x[planted.rows("validation")]
    code = crosscoder.encode(x, threshold=2.0)
    assert found.n_tokens == len(x)
    assert found.l0 == pytest.approx(float((code > 0).sum(1).double().mean()))
    assert found.never_fired == pytest.approx(float((~(code > 0).any(0)).double().mean()))
    assert found.l0_batch == pytest.approx(4)
    error = (x - crosscoder.decode(code)).square().sum((0, 2)) / (x - x.mean(0)).square().sum((0, 2))
    assert found.fve == pytest.approx((1 - error).tolist(), rel=1e-4)


def test_without_a_threshold_its_figures_are_missing_not_zero(planted: PlantedSource) -> None:
    crosscoder = untrained(planted)
    batches = planted.x[planted.rows("validation")[:200]].split(100)
    found = evaluate(crosscoder, batches, threshold=math.nan, k=4)
    assert found.n_tokens == 200
    assert all(math.isnan(value) for value in (found.l0, found.never_fired, *found.fve))
    assert not math.isnan(found.fve_batch[0])


def test_a_collapsed_crosscoder_keeps_nothing_and_reconstructs_its_bias(planted: PlantedSource) -> None:
    crosscoder = untrained(planted)
    with torch.no_grad():
        crosscoder.encoder_bias.fill_(-1e6)
        crosscoder.decoder_bias.zero_()
    batches = planted.x[planted.rows("validation")[:200]].split(100)
    found = evaluate(crosscoder, batches, threshold=math.nan, k=4)
    assert found.l0_batch == 0
    assert found.fve_batch == pytest.approx([0.0, 0.0], abs=0.05)  # the bias is the training rows' mean
