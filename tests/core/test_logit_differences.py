"""Differences of logits by hand, against float64, and without any difference."""

import math

import pytest
import torch

from crossdiff.core.logit_differences import TokenSums, change_of, find_topics


def test_one_position_by_hand() -> None:
    """Base (1/2, 1/4, 1/4), tuned (1/4, 1/2, 1/4): token 0 falls, token 1 rises by log 2, token 2 stays."""
    base, tuned = (torch.log(torch.tensor([row])) for row in ([0.5, 0.25, 0.25], [0.25, 0.5, 0.25]))
    change = change_of(base, tuned + 3.0, torch.tensor([1]), k=1)  # a constant that softmax ignores
    log2 = math.log(2)
    assert change.difference.tolist()[0] == pytest.approx([-log2, log2, 0], abs=1e-6)
    assert change.raw.tolist()[0] == pytest.approx([3 - log2, 3 + log2, 3], abs=1e-6)
    assert (change.top.item(), change.bottom.item()) == (1, 0)
    assert change.values.item() == pytest.approx(log2, abs=1e-6)
    assert change.nll.flatten().tolist() == pytest.approx([2 * log2, log2], abs=1e-6)
    assert change.kl.item() == pytest.approx(0.25 * log2, abs=1e-6)  # 1/4 (-log 2) + 1/2 log 2
    sums = TokenSums.empty(3)
    sums.add_document(change)
    assert sums.top.tolist() == [0, 1, 0]
    assert sums.top_documents.tolist() == [0, 1, 0]
    assert sums.bottom.tolist() == [1, 0, 0]
    assert sums.positive.tolist() == [1, 1, 1]
    assert sums.total.tolist() == pytest.approx([-log2, log2, 0], abs=1e-6)


def test_sums_are_those_of_float64_logits() -> None:
    generator = torch.Generator().manual_seed(0)
    base, tuned = (torch.randn(40, 17, generator=generator) for _ in range(2))
    following = torch.randint(17, (40,), generator=generator)
    sums, whole = TokenSums.empty(17), TokenSums.empty(17)
    for part in (slice(0, 15), slice(15, 40)):
        own = TokenSums.empty(17)
        own.add_document(change_of(base[part], tuned[part], following[part], k=3))
        sums.add(own)
    whole.add_document(change_of(base, tuned, following, k=3))
    exact = torch.log_softmax(tuned.double(), -1) - torch.log_softmax(base.double(), -1)
    torch.testing.assert_close(sums.total, exact.sum(0), atol=1e-4, rtol=1e-5)
    assert torch.equal(sums.raised, (exact > 0).sum(0))
    assert torch.equal(sums.top, whole.top)
    ranked = exact.argsort(dim=1, descending=True)[:, :3]
    assert torch.equal(sums.top, torch.bincount(ranked.flatten(), minlength=17))
    assert sums.top_documents.max() <= 2
    kl = torch.nn.functional.kl_div(
        torch.log_softmax(base.double(), -1), torch.softmax(tuned.double(), -1), reduction="none"
    ).sum(-1)
    found = change_of(base, tuned, following, k=3).kl
    torch.testing.assert_close(found.double(), kl, atol=1e-5, rtol=1e-4)


def test_equal_logits_raise_nothing() -> None:
    logits = torch.randn(5, 9, generator=torch.Generator().manual_seed(1))
    logits[:, 4] = -math.inf  # excluded by both
    sums = TokenSums.empty(9)
    change = change_of(logits, logits.clone(), torch.zeros(5, dtype=torch.int64), k=4)
    sums.add_document(change)
    assert all(int(each.sum()) == 0 for each in sums.tensors().values())
    assert change.kl.tolist() == [0.0] * 5


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_broken_model_is_refused_and_named(wrong: float) -> None:
    """NaN on one side would otherwise pass for `both predict the same`."""
    good = torch.randn(3, 5, generator=torch.Generator().manual_seed(2))
    bad, following = good.clone(), torch.zeros(3, dtype=torch.int64)
    bad[1, 2] = wrong
    with pytest.raises(ValueError, match="the tuned model predicts NaN or infinity at 1 of 3"):
        change_of(good, bad, following, k=2)
    with pytest.raises(ValueError, match="the base model"):
        change_of(bad, good, following, k=2)


def planted(n_rows: int = 120) -> tuple[torch.Tensor, torch.Tensor]:
    """Three groups of four columns; every row has one group, at a size of its own."""
    generator = torch.Generator().manual_seed(3)
    directions = torch.zeros(3, 12)
    for group in range(3):
        directions[group, 4 * group : 4 * group + 4] = torch.rand(4, generator=generator) + 0.5
    directions = directions / directions.norm(dim=1, keepdim=True)
    sizes = torch.rand(n_rows, generator=generator) + 0.5
    return sizes[:, None] * directions[torch.arange(n_rows) % 3], directions


def test_planted_groups_are_the_topics() -> None:
    matrix, directions = planted()
    topics = find_topics(matrix.to_sparse(), 3, seed=0)
    best = (topics.directions @ directions.T).max(dim=0).values
    assert best.min() > 0.999
    assert topics.share_explained == pytest.approx(1, abs=1e-3)
    assert topics.codes.argmax(dim=1).unique().numel() == 3


def test_the_share_is_that_of_the_dense_matrix_and_rises_with_steps() -> None:
    matrix = torch.rand(30, 20, generator=torch.Generator().manual_seed(0))
    shares = []
    for n_steps in (1, 5, 50):
        found = find_topics(matrix.to_sparse(), 4, seed=1, n_steps=n_steps)
        left = (matrix - found.codes @ found.directions).square().sum() / matrix.square().sum()
        assert found.share_explained == pytest.approx(1 - float(left), abs=1e-4)
        assert (found.codes >= 0).all()
        shares.append(found.share_explained)
    assert shares == sorted(shares)
