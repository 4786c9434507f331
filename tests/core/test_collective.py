import torch

from crossdiff.core import collective


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
