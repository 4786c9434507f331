import pytest
import torch
from pydantic import ValidationError

from crossdiff.core.sparsity import L1, BatchTopK, JumpReLU, TopK, check_fits, within


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


def test_users_methods_find_the_exact_selection_here_too() -> None:
    from crossdiff.core import sparsity, threshold

    assert sparsity.largest_per_token is threshold.largest_per_token
    with pytest.raises(AttributeError, match="no attribute 'smallest'"):
        _ = sparsity.smallest


def test_penalties_by_hand() -> None:
    code, norm = torch.tensor([[1.0, 0.0], [2.0, 3.0]]), torch.tensor([2.0, 1.0])
    assert float(L1(penalty=1.0).cost(code, norm)) == (2 + 7) / 2
    expected = (torch.tensor(8.0).tanh() + torch.tensor(16.0).tanh() + torch.tensor(12.0).tanh()) / 2
    torch.testing.assert_close(JumpReLU(penalty=1.0).cost(code, norm), expected)
