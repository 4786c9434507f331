from datetime import timedelta

import pytest
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


def test_ranks_wait_as_long_for_their_row_and_column_as_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list = []
    monkeypatch.setattr(collective, "_groups", {})
    monkeypatch.setattr(collective, "n_ranks", lambda _: 4)
    monkeypatch.setattr(
        "torch.distributed.new_subgroups_by_enumeration", lambda *given: asked.append(given) or [None]
    )
    wait = timedelta(days=2)
    collective.arrange(2, timeout=wait)
    assert asked == [([[0, 2], [1, 3]], wait), ([[0, 1], [2, 3]], wait)]
    collective.arrange(4, timeout=wait)
    assert asked[2:] == [([[0], [1], [2], [3]], wait)]  # a row of all ranks is everybody
