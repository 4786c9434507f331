"""Exact selection; collective functions with threads that stand in for processes."""

import threading
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossdiff.core import largest as module
from crossdiff.core.largest import largest, largest_per_token


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
