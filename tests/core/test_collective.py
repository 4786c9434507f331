"""Collective functions, with threads that stand in for processes."""

import threading
from collections.abc import Callable

import pytest
import torch

from crossdiff.core import collective


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

    monkeypatch.setattr(collective, "gather_over_ranks", gather)
    monkeypatch.setattr(collective, "own_rank", lambda: local.rank)
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
        lambda rank: collective.largest_of_all(lists[rank], count=count, limit=20),
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
        lambda rank: collective.largest_of_all(lists[rank], count=100, limit=4), n=2, monkeypatch=monkeypatch
    )
    assert [mask.tolist() for mask, _ in found] == [[True, True], [True]]


def test_outside_a_distributed_run_every_function_is_the_identity() -> None:
    x = torch.randn(6, 3)
    assert collective.n_ranks() == 1
    for function in (
        collective.own_part,
        collective.sum_over_ranks,
        collective.mean_over_ranks,
        collective.largest_over_ranks,
    ):
        assert torch.equal(function(x), x)
    torch.testing.assert_close(collective.residual_variance(x), x.var(0, correction=0).sum())
