"""FVE against its definition, with attention sinks planted at the first token of every document."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from crossdiff.core.explained_variance import FitSums


def by_definition(x: Tensor, x_hat: Tensor) -> list[float]:
    x, x_hat = x.double(), x_hat.double()
    return (1 - (x - x_hat).square().sum((0, 2)) / (x - x.mean(0)).square().sum((0, 2))).tolist()


def summed(x: Tensor, x_hat: Tensor, document: Tensor | None, *, size: int = 17) -> FitSums:
    sums = FitSums.zeros(x)
    for start in range(0, len(x), size):
        rows = slice(start, start + size)
        sums.add(x[rows], x_hat[rows], document=None if document is None else document[rows])
    return sums


@pytest.fixture
def sinks() -> tuple[Tensor, Tensor, Tensor]:
    """Activations of 40 documents of 25 tokens, where a reconstruction is right at the sinks alone."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1000, 2, 6, generator=generator)
    x_hat = x + 1.5 * torch.randn(x.shape, generator=generator)
    first = torch.arange(0, 1000, 25)
    x[first] = 200 * torch.randn(40, 2, 6, generator=generator)
    x_hat[first] = x[first]
    return x, x_hat, torch.arange(1000) // 25


@pytest.mark.parametrize("size", [1, 17, 25, 1000])
def test_sinks_that_carry_the_fve_are_seen_without_the_first_tokens(
    sinks: tuple[Tensor, Tensor, Tensor], size: int
) -> None:
    x, x_hat, document = sinks
    sums = summed(x, x_hat, document, size=size)
    rest = torch.arange(1000) % 25 != 0
    assert sums.n_first == 40
    assert sums.explained() == pytest.approx(by_definition(x, x_hat), rel=1e-6)
    assert sums.explained_without_first() == pytest.approx(by_definition(x[rest], x_hat[rest]), rel=1e-5)
    assert min(sums.explained()) > 0.99
    assert max(sums.explained_without_first()) < -1


def test_merged_parts_equal_one_pass(sinks: tuple[Tensor, Tensor, Tensor]) -> None:
    x, x_hat, document = sinks
    merged = summed(x[:500], x_hat[:500], document[:500])
    merged.merge(summed(x[500:], x_hat[500:], document[500:]))
    whole = summed(x, x_hat, document)
    assert merged.n_first == whole.n_first
    assert merged.explained() == pytest.approx(whole.explained(), rel=1e-12)
    assert merged.explained_without_first() == pytest.approx(whole.explained_without_first(), rel=1e-9)


def test_unknown_documents_give_no_figure_rather_than_the_whole(sinks: tuple[Tensor, Tensor, Tensor]) -> None:
    x, x_hat, document = sinks
    sums = summed(x[:500], x_hat[:500], document[:500])
    sums.merge(summed(x[500:], x_hat[500:], None))
    assert all(map(math.isnan, sums.explained_without_first()))
    assert not any(map(math.isnan, sums.explained()))


def test_the_mean_explains_nothing_and_tokens_that_do_not_vary_have_no_figure() -> None:
    x = torch.randn(100, 1, 3)
    assert summed(x, x.mean(0, keepdim=True).expand_as(x), None).explained() == pytest.approx([0], abs=1e-6)
    assert math.isnan(summed(torch.ones(10, 1, 3), torch.zeros(10, 1, 3), None).explained()[0])
    assert math.isnan(FitSums.zeros(x).explained()[0])
