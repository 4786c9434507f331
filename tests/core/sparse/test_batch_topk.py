from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossdiff.core.sparse.backends import kernels
from crossdiff.core.sparse.batch_topk import Encoder, Search, Selection, select

BACKENDS = ["torch", "compiled"]


def encoder(n_latents: int, width: int, *, seed: int = 0, grid: bool = False) -> Encoder:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(n_latents, width, generator=generator)
    bias = 0.5 * torch.randn(n_latents, generator=generator)
    norm = 1 + torch.rand(n_latents, generator=generator)
    if grid:  # halves: products are exact and ties frequent
        weight, bias, norm = ((2 * part).round() / 2 for part in (weight, bias, norm))
    return Encoder(weight, bias, norm)


def search(backend: str = "torch", dtype: torch.dtype = torch.float32, chunk: int = 64) -> Search:
    return Search(dtype, chunk, kernels(backend))


def brute_force(x: torch.Tensor, enc: Encoder, count: int) -> list[int]:
    """Flat indices of the count largest positive scaled codes, ties by position: a stable full sort."""
    scaled = ((x @ enc.weight.T + enc.bias).relu() * enc.norm).flatten()
    order = torch.argsort(scaled, descending=True, stable=True)[:count]
    return sorted(order[scaled[order] > 0].tolist())


def kept(found: Selection) -> list[int]:
    return (found.code.token * found.code.n_latents + found.code.latent).tolist()


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=40, deadline=None)
@given(
    n_tokens=st.integers(1, 30),
    n_latents=st.integers(1, 200),
    count=st.integers(1, 3000),
    guess=st.floats(0, 8),
    seed=st.integers(0, 10_000),
)
def test_exactly_the_largest_are_kept_with_ties_to_the_lowest_index(
    backend: str, n_tokens: int, n_latents: int, count: int, guess: float, seed: int
) -> None:
    enc = encoder(n_latents, 6, seed=seed, grid=True)
    x = (2 * torch.randn(n_tokens, 6, generator=torch.Generator().manual_seed(seed))).round() / 2
    found = select(x, enc, count=count, cut=guess, search=search(backend))
    assert kept(found) == brute_force(x, enc, count)


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_equal_codes_keep_the_first_entries(backend: str) -> None:
    enc = Encoder(torch.ones(100, 4), torch.zeros(100), torch.ones(100))
    found = select(torch.ones(5, 4), enc, count=150, cut=0.0, search=search(backend))
    assert kept(found) == list(range(150))
    assert found.threshold == 4


def test_without_a_positive_code_nothing_is_kept() -> None:
    enc = replace(encoder(50, 4), bias=torch.full((50,), -100.0))
    found = select(torch.randn(5, 4), enc, count=20, cut=1.0, search=search())
    assert len(found.code) == 0
    assert found.threshold != found.threshold
    assert found.next_cut == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_codes_kept_after_a_bfloat16_product_are_those_of_the_float32_product(backend: str) -> None:
    enc, generator = encoder(2048, 256), torch.Generator().manual_seed(1)
    cut, wrong, total = 0.0, 0, 0
    for _ in range(4):
        x = torch.randn(256, 256, generator=generator)
        exact = select(x, enc, count=256 * 16, cut=0.0, search=search(backend, chunk=512))
        narrow = select(x, enc, count=256 * 16, cut=cut, search=search(backend, torch.bfloat16, chunk=512))
        cut = narrow.next_cut
        wrong += len(set(kept(exact)) ^ set(kept(narrow)))
        total += len(exact.code)
    assert cut > 0
    assert wrong <= 1e-4 * total


def test_rounding_larger_than_the_margin_is_noticed() -> None:
    """Biases of 100 leave a bfloat16 product errors of about 0.2, more than 7 % of a threshold of 2."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.cat([torch.randn(1024, 32, generator=generator), torch.full((1024, 1), 100.0)], dim=1)
    enc = Encoder(weight, torch.full((1024,), -100.0), torch.ones(1024))
    x = torch.cat([torch.randn(128, 32, generator=generator) / 8, torch.ones(128, 1)], dim=1)
    exact = select(x, enc, count=512, cut=0.0, search=search())
    narrow = select(x, enc, count=512, cut=exact.next_cut, search=search(dtype=torch.bfloat16))
    assert len(set(kept(exact)) ^ set(kept(narrow))) <= 2


@pytest.mark.parametrize("guess", [0.0, 0.1, 3.0, 4.0, 100.0])
def test_the_guess_changes_nothing_in_full_precision(guess: float) -> None:
    enc, x = encoder(300, 8), torch.randn(40, 8, generator=torch.Generator().manual_seed(2))
    plain = select(x, enc, count=200, cut=0.0, search=search())
    guided = select(x, enc, count=200, cut=guess, search=search())
    assert kept(guided) == kept(plain)
    assert torch.equal(guided.code.value, plain.code.value)
    assert guided.threshold == plain.threshold


def test_a_repeated_batch_is_found_with_the_guess_it_left() -> None:
    enc, x = encoder(300, 8), torch.randn(40, 8, generator=torch.Generator().manual_seed(2))
    first = select(x, enc, count=200, cut=0.0, search=search())
    assert 0.9 * first.threshold < first.next_cut < first.threshold
    second = select(x, enc, count=200, cut=first.next_cut, search=search())
    assert second.threshold == first.threshold
