"""Whole training runs: the sparse step with its optimizer against the dense step with torch's Adam."""

from __future__ import annotations

import pytest
import torch

from crossdiff.core import dense
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dense import StepPlan
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.sparse import BatchTopKStep, SparseRowAdam
from crossdiff.core.sparsity import BatchTopK

N_LATENTS, D_MODEL, N_TOKENS, K = 256, 16, 128, 6


def fresh(dtype: torch.dtype) -> Crosscoder:
    made = Crosscoder(DictionarySettings(n_latents=N_LATENTS), n_models=2, d_model=D_MODEL)
    made.initialise_(torch.Generator().manual_seed(0))
    return made.to(dtype)


def batch(number: int, dtype: torch.dtype) -> torch.Tensor:
    """Sparse sums of fixed directions, as a model's activations are."""
    generator = torch.Generator().manual_seed(number)
    directions = torch.randn(64, 2 * D_MODEL, generator=torch.Generator().manual_seed(99), dtype=dtype)
    active = (torch.rand(N_TOKENS, 64, generator=generator, dtype=dtype) - 0.9).relu() * 10
    return (active @ directions).view(N_TOKENS, 2, D_MODEL)


def plan(step: int) -> StepPlan:
    """k annealed from 20, and a sixteenth of the latents dead in the second half."""
    k = max(K, 20 - step)
    dead = torch.arange(0, N_LATENTS, 16) if step > 30 else torch.zeros(0, dtype=torch.long)
    return StepPlan(BatchTopK(k=K), k, 0.0, "norm", 1 / 32, D_MODEL // 2, dead)


def dense_losses(n_steps: int, dtype: torch.dtype) -> torch.Tensor:
    made, losses = fresh(dtype), []
    optimizer = torch.optim.Adam(made.parameters(), lr=1e-3)
    for step in range(n_steps):
        losses.append(dense.gradients(made, batch(step, dtype), plan(step)).total)
        torch.nn.utils.clip_grad_norm_(made.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return torch.stack(losses)


def sparse_losses(n_steps: int, dtype: torch.dtype, *, backend: str, encode: str) -> torch.Tensor:
    made, losses = fresh(dtype), []
    optimizer = SparseRowAdam(made.parameters(), lr=1e-3, max_norm=1.0, backend=backend)
    step_of = BatchTopKStep(backend=backend, encode=encode)
    for step in range(n_steps):
        losses.append(step_of.gradients(made, batch(step, dtype), plan(step)).total)
        optimizer.step()
        optimizer.zero_grad()
    return torch.stack(losses)


@pytest.mark.parametrize("encode", ["float32", "bfloat16"])
@pytest.mark.parametrize("backend", ["torch", "compiled"])
def test_sixty_float32_steps_give_the_losses_of_the_dense_step(backend: str, encode: str) -> None:
    expected = dense_losses(60, torch.float32)
    found = sparse_losses(60, torch.float32, backend=backend, encode=encode)
    assert ((found - expected).abs() / expected).max() <= 1e-5
    assert expected[-1] < 0.8 * expected[0]


def test_two_hundred_float64_steps_give_the_losses_of_the_dense_step() -> None:
    expected = dense_losses(200, torch.float64)
    found = sparse_losses(200, torch.float64, backend="torch", encode="float32")
    assert ((found - expected).abs() / expected).max() <= 1e-9


@pytest.mark.parametrize("backend", ["torch", "compiled"])
def test_a_run_repeated_is_equal_bit_for_bit(backend: str) -> None:
    first, second = (sparse_losses(40, torch.float32, backend=backend, encode="bfloat16") for _ in range(2))
    assert torch.equal(first, second)
