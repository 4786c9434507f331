import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from crossdiff.core.sparsity import L1, BatchTopK, TopK, check_fits, largest, largest_per_token, within


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


def test_k_anneals_linearly_and_never_exceeds_the_dictionary() -> None:
    sparsity = BatchTopK(k=100, k_initial=1024, anneal_steps=2000)
    assert [sparsity.k_at(step, n_latents=10**6) for step in (0, 1000, 2000, 9000)] == [1024, 562, 100, 100]
    assert sparsity.k_at(0, n_latents=500) == 500
    assert sparsity.threshold_start == 2000
    assert TopK(k=5).k_at(0, n_latents=10) == 5
    assert TopK(k=5).threshold_start == 0


def test_a_penalty_warms_up_linearly() -> None:
    assert [L1(penalty=0.4, warmup_steps=4).penalty_at(s) for s in (0, 1, 3, 9)] == [0.1, 0.2, 0.4, 0.4]


def test_a_k_above_the_dictionary_is_refused_with_the_way_out() -> None:
    with pytest.raises(ValueError, match=r"sparsity.k=100 is larger than the dictionary's 64 latents"):
        check_fits(BatchTopK(k=100), n_latents=64)
    check_fits(BatchTopK(k=64), n_latents=64)


def test_annealing_upwards_is_refused() -> None:
    with pytest.raises(ValidationError, match="annealing goes downwards"):
        BatchTopK(k=10, k_initial=5, anneal_steps=3)


def test_annealing_ends_at_half_of_a_run_that_is_too_short_for_it() -> None:
    schedule = BatchTopK(k=100, k_initial=1024, anneal_steps=2000)
    assert within(schedule, 1000).k_at(500, n_latents=4096) == 100
    assert within(schedule, 100_000) == schedule
    assert within(L1(penalty=1.0, warmup_steps=1000), 100).penalty_at(49) == 1.0
