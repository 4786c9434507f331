import math
import threading
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossdiff.core import threshold as module
from crossdiff.core.crosscoder import LATENT_CHUNK, Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.threshold import (
    RunningThreshold,
    estimate_threshold,
    largest,
    largest_per_token,
    smallest_kept,
)


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


def by_sorting(scaled: torch.Tensor, count: int) -> torch.Tensor:
    """Independent implementation: a stable full sort, so that ties go to the lowest flat index."""
    flat = scaled.reshape(-1)
    kept = torch.sort(flat, descending=True, stable=True).indices[:count]
    return torch.zeros_like(flat, dtype=torch.bool).index_fill_(0, kept, True).view_as(scaled)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_largest_keeps_exactly_the_count_with_ties_at_the_lowest_index(n: int, m: int, data) -> None:
    values = data.draw(st.lists(st.integers(0, 3), min_size=n * m, max_size=n * m))
    count = data.draw(st.integers(1, n * m))
    scaled = torch.tensor(values, dtype=torch.float32).view(n, m)
    mask = largest(scaled, count=count)
    assert int(mask.sum()) == count
    assert torch.equal(mask, by_sorting(scaled, count))


@pytest.mark.parametrize("ties", [False, True])
def test_the_guided_search_equals_sorting_on_a_large_batch(ties: bool) -> None:
    scaled = torch.randn(512, 512, generator=torch.Generator().manual_seed(0)).relu()
    scaled = (scaled * 8).round() if ties else scaled
    assert torch.equal(largest(scaled, count=512 * 8), by_sorting(scaled, 512 * 8))


def test_the_guided_search_survives_a_sample_that_misleads() -> None:
    scaled = torch.rand(512, 512, generator=torch.Generator().manual_seed(0))
    scaled[::32] += 100
    assert torch.equal(largest(scaled, count=512 * 8), by_sorting(scaled, 512 * 8))


def test_top_k_per_token_breaks_ties_at_the_lowest_latent() -> None:
    mask = largest_per_token(torch.tensor([[1.0, 2.0, 2.0, 2.0], [3.0, 0.0, 0.0, 1.0]]), k=2)
    assert mask.tolist() == [[False, True, True, False], [True, False, False, True]]


def on_ranks(function: Callable[[int], object], *, n: int, monkeypatch: pytest.MonkeyPatch) -> list:
    """Run `function(rank)` in n threads between which `gather_over_ranks` exchanges tensors."""
    local, barrier = threading.local(), threading.Barrier(n)
    slots: list = [None] * n
    results: list = [None] * n

    def gather(tensor: torch.Tensor) -> list[torch.Tensor]:
        slots[local.rank] = tensor
        barrier.wait(timeout=30)
        found = [slot.clone() for slot in slots]
        barrier.wait(timeout=30)
        return found

    def run(rank: int) -> None:
        local.rank = rank
        results[rank] = function(rank)

    monkeypatch.setattr(module, "gather_over_ranks", gather)
    monkeypatch.setattr(module, "own_rank", lambda: local.rank)
    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    return results


@pytest.mark.parametrize("count", [1, 7, 20, 44, 45])
@pytest.mark.parametrize("seed", range(3))
def test_the_largest_of_all_ranks_are_those_of_the_joined_list(
    count: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few distinct values, so that ties run over ranks: the lowest rank and index win."""
    generator = torch.Generator().manual_seed(seed)
    lists = [torch.randint(0, 4, (length,), generator=generator).float() for length in (15, 20, 10)]
    found = on_ranks(
        lambda rank: module.largest_of_all(lists[rank], count=count, limit=20),
        n=3,
        monkeypatch=monkeypatch,
    )
    joined = torch.cat(lists)
    expected = torch.zeros(45, dtype=torch.bool)
    expected[torch.sort(joined, descending=True, stable=True).indices[:count]] = True
    assert torch.equal(torch.cat([mask for mask, _ in found]), expected)
    assert {float(smallest) for _, smallest in found} == {float(joined[expected].min())}


def test_more_wanted_than_there_are_keeps_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    lists = [torch.tensor([1.0, 2.0]), torch.tensor([3.0])]
    found = on_ranks(
        lambda rank: module.largest_of_all(lists[rank], count=100, limit=4), n=2, monkeypatch=monkeypatch
    )
    assert [mask.tolist() for mask, _ in found] == [[True, True], [True]]
