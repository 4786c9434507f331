"""Whole training runs: the sparse step with its optimizer against the dense step with torch's Adam."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from crossdiff.core import dense
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dense import StepPlan
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.sparse import BatchTopKStep, SparseRowAdam
from crossdiff.core.sparsity import BatchTopK
from crossdiff.training.optimise import Stepper
from crossdiff.training.settings import TrainingSettings

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


@pytest.mark.slow
def test_two_hundred_float64_steps_give_the_losses_of_the_dense_step() -> None:
    expected = dense_losses(200, torch.float64)
    found = sparse_losses(200, torch.float64, backend="torch", encode="float32")
    assert ((found - expected).abs() / expected).max() <= 1e-9


@pytest.mark.parametrize("backend", ["torch", "compiled"])
def test_a_run_repeated_is_equal_bit_for_bit(backend: str) -> None:
    first, second = (sparse_losses(40, torch.float32, backend=backend, encode="bfloat16") for _ in range(2))
    assert torch.equal(first, second)


def lazy_run(
    architecture: Any, *, accumulate: int, backend: Any, by_hand: bool, n_steps: int = 15
) -> tuple[list[torch.Tensor], float]:
    """Parameters after lazy Adam, by the optimizer or written out here, and the share of rows left alone."""
    made = Crosscoder(
        DictionarySettings(n_latents=N_LATENTS, architecture=architecture), n_models=2, d_model=16
    )
    made.initialise_(torch.Generator().manual_seed(0))
    training = TrainingSettings(n_steps=n_steps, accumulate=accumulate, optimizer="lazy_adam", clip_norm=1e9)
    stepper = Stepper(made, BatchTopK(k=2), training)
    assert stepper.sparse is not None
    stepper.sparse.backend = backend
    optimizer: Any = stepper.optimizer()
    optimizer.backend = backend
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in made.parameters()]
    still = 0.0
    for step in range(n_steps):
        dead = torch.arange(0, N_LATENTS, 16) if step > 7 else torch.zeros(0, dtype=torch.long)
        stepper.gradients(batch(step, torch.float32)[:32], step=step, dead=dead)
        before = made.encoder.detach().clone()
        if by_hand:
            lazy_adam_(made, moments, step=step + 1, rate=training.learning_rate)
        else:
            optimizer.step()
        still += float((made.encoder == before).all(dim=2).all(dim=1).float().mean()) / n_steps
        optimizer.zero_grad()
    return [p.detach() for p in made.parameters()], still


@torch.no_grad()
def lazy_adam_(made: Crosscoder, moments: list, *, step: int, rate: float) -> None:
    """Textbook Adam (Kingma and Ba, 2015, algorithm 1) on the rows whose gradient is not 0."""
    for parameter, (mean, square) in zip(made.parameters(), moments, strict=True):
        assert parameter.grad is not None
        gradient = parameter.grad.to_dense()
        rows = (gradient != 0).reshape(len(gradient), -1).any(dim=1)
        mean[rows] = 0.9 * mean[rows] + 0.1 * gradient[rows]
        square[rows] = 0.999 * square[rows] + 0.001 * gradient[rows].square()
        root = (square[rows] / (1 - 0.999**step)).sqrt() + 1e-8
        parameter[rows] -= rate * mean[rows] / (1 - 0.9**step) / root


@pytest.mark.parametrize("backend", ["torch", "compiled"])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("architecture", ["standard", "designated_shared", "dedicated_feature", "dedicated"])
def test_lazy_adam_is_lazy_whatever_backend_layout_and_architecture(
    architecture: str, accumulate: int, backend: str
) -> None:
    expected, still = lazy_run(architecture, accumulate=accumulate, backend="torch", by_hand=True)
    assert 0.1 < still < 0.9
    found, as_still = lazy_run(architecture, accumulate=accumulate, backend=backend, by_hand=False)
    assert as_still == pytest.approx(still, abs=1e-3)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=2e-6)
