import math

import pytest
import torch

from crossdiff.core.crosscoder import LATENT_CHUNK, Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.threshold import RunningThreshold, estimate_threshold, smallest_kept


def test_the_running_average_is_right_from_its_first_value_on() -> None:
    running = RunningThreshold(decay=0.999)
    assert math.isnan(running.value())
    running.add(2.0)
    assert running.value() == pytest.approx(2.0)
    running.add(4.0)
    assert running.value() == pytest.approx((0.999 * 2 + 4) / 1.999)
    running.add(math.nan)
    assert running.n == 2


def test_the_running_average_continues_from_its_state() -> None:
    first, second = RunningThreshold(decay=0.9), RunningThreshold(decay=0.9)
    first.add(1.0)
    second.restore(first.state())
    first.add(5.0)
    second.add(5.0)
    assert first == second


def test_the_estimate_gives_the_wanted_l0_on_such_batches() -> None:
    crosscoder = Crosscoder(DictionarySettings(n_latents=LATENT_CHUNK + 500), n_models=2, d_model=8)
    crosscoder.initialise_(torch.Generator().manual_seed(0))
    batches = [torch.randn(200, 2, 8, generator=torch.Generator().manual_seed(100 + n)) for n in range(80)]
    threshold = estimate_threshold(crosscoder, batches[:40], k=20)
    n_active = sum(len(crosscoder.encode_sparse(x, threshold=threshold)) for x in batches[:40])
    assert n_active == pytest.approx(20 * 8000, abs=1)
    held_out = sum(len(crosscoder.encode_sparse(x, threshold=threshold)) for x in batches[40:]) / 8000
    assert held_out == pytest.approx(20, rel=0.2)


def test_the_smallest_kept_code_is_the_count_th_largest_of_the_whole_matrix() -> None:
    crosscoder = Crosscoder(DictionarySettings(n_latents=LATENT_CHUNK + 500), n_models=2, d_model=8)
    crosscoder.initialise_(torch.Generator().manual_seed(0))
    x = torch.randn(30, 2, 8, generator=torch.Generator().manual_seed(1))
    scaled = crosscoder.scaled(crosscoder.encode(x, threshold=0.0)).flatten()
    assert smallest_kept(crosscoder, x, k=5) == pytest.approx(
        float(scaled.detach().sort(descending=True).values[149])
    )


def test_a_batch_with_few_positive_codes_gives_its_smallest_positive_one() -> None:
    crosscoder = Crosscoder(DictionarySettings(n_latents=3), n_models=1, d_model=1)
    with torch.no_grad():
        crosscoder.encoder[:, 0, 0] = torch.tensor([1.0, 2.0, -1.0])
        crosscoder.decoder.fill_(1.0)
    assert smallest_kept(crosscoder, torch.ones(1, 1, 1), k=3) == 1.0
    assert math.isnan(smallest_kept(crosscoder, torch.zeros(1, 1, 1), k=3))
