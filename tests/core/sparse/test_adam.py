from __future__ import annotations

import copy

import pytest
import torch

from crossdiff.core.sparse.adam import SparseRowAdam, gradient_norm

BACKENDS = ["torch", "compiled"]
ROWS, WIDTH = 24, 2 * 20


def parameters() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(ROWS, 2, 20), (ROWS,), (2, 20)]
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def gradients(step: int, *, sparse: bool) -> list[torch.Tensor]:
    """Rows 0, 3, 6, ... of the first two parameters, other rows at other steps."""
    generator = torch.Generator().manual_seed(step)
    rows = torch.arange(step % 3, ROWS, 3)
    made = []
    for shape in [(ROWS, 2, 20), (ROWS,)]:
        values = torch.randn(rows.shape[0], *shape[1:], generator=generator)
        row_sparse = torch.sparse_coo_tensor(
            rows[None], values, shape, is_coalesced=True, check_invariants=True
        )
        made.append(row_sparse if sparse else row_sparse.to_dense())
    return [*made, torch.randn(2, 20, generator=generator)]


def train(optimizer: torch.optim.Optimizer, ours: list, steps: range, *, sparse: bool) -> None:
    for step in steps:
        for parameter, gradient in zip(ours, gradients(step, sparse=sparse), strict=True):
            parameter.grad = gradient
        optimizer.step()


def dense_adam(expected: list, n_steps: int, *, max_norm: float) -> None:
    optimizer = torch.optim.Adam(expected, lr=1e-2)
    for step in range(n_steps):
        for parameter, gradient in zip(expected, gradients(step, sparse=False), strict=True):
            parameter.grad = gradient
        torch.nn.utils.clip_grad_norm_(expected, max_norm)
        optimizer.step()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("max_norm", [0.5, 1e9])
def test_row_gradients_give_the_weights_of_dense_clipped_adam(
    backend: str, sparse: bool, max_norm: float
) -> None:
    ours, expected = parameters(), parameters()
    optimizer = SparseRowAdam(ours, lr=1e-2, max_norm=max_norm, backend=backend)
    train(optimizer, ours, range(20), sparse=sparse)
    dense_adam(expected, 20, max_norm=max_norm)
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=2e-6, atol=2e-6)


def test_skipping_inactive_rows_is_a_different_optimizer() -> None:
    ours, expected = parameters(), parameters()
    train(SparseRowAdam(ours, lr=1e-2, inactive="skip", backend="torch"), ours, range(20), sparse=True)
    dense_adam(expected, 20, max_norm=1e9)
    assert (ours[0] - expected[0]).abs().max() > 1e-3


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sparse", [True, False])
def test_rows_of_gradient_zero_are_skipped_in_either_layout_and_on_either_backend(
    backend: str, sparse: bool
) -> None:
    ours, expected = parameters(), parameters()
    train(SparseRowAdam(ours, lr=1e-2, inactive="skip", backend=backend), ours, range(20), sparse=sparse)
    train(
        SparseRowAdam(expected, lr=1e-2, inactive="skip", backend="torch"), expected, range(20), sparse=True
    )
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sparse", [True, False])
def test_two_lazy_steps_by_hand(backend: str, sparse: bool) -> None:
    """Adam's first step moves a weight by the rate, and a second one of equal gradient does so again.

    Row 0 has such gradients, row 1 has gradient 0 in the second step and stays, row 2 never moves.
    """
    weights = torch.nn.Parameter(torch.ones(3, 2))
    optimizer = SparseRowAdam([weights], lr=0.1, inactive="skip", backend=backend)
    for gradient in ([[2.0, -5.0], [4.0, 0.0], [0.0, -0.0]], [[2.0, -5.0], [0.0, 0.0], [0.0, -0.0]]):
        listed = torch.sparse_coo_tensor(
            torch.arange(3)[None], torch.tensor(gradient), (3, 2), is_coalesced=True, check_invariants=True
        )
        weights.grad = listed if sparse else torch.tensor(gradient)
        optimizer.step()
    torch.testing.assert_close(weights.data, torch.tensor([[0.8, 1.2], [0.9, 1.0], [1.0, 1.0]]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_restored_optimizer_continues_bit_for_bit(backend: str) -> None:
    straight, resumed = parameters(), parameters()
    train(SparseRowAdam(straight, max_norm=1.0, backend=backend), straight, range(10), sparse=True)
    first = SparseRowAdam(resumed, max_norm=1.0, backend=backend)
    train(first, resumed, range(5), sparse=True)
    second = SparseRowAdam(resumed, max_norm=1.0, backend=backend)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    train(second, resumed, range(5, 10), sparse=True)
    for mine, theirs in zip(resumed, straight, strict=True):
        assert torch.equal(mine, theirs)


def test_its_state_is_that_of_torch_adam() -> None:
    ours = parameters()
    optimizer = SparseRowAdam(ours, max_norm=0.5)
    train(optimizer, ours, range(2), sparse=True)
    theirs = torch.optim.Adam(parameters())
    theirs.load_state_dict(optimizer.state_dict())
    assert theirs.state_dict()["state"][0].keys() == {"step", "exp_avg", "exp_avg_sq"}


def test_the_norm_of_row_gradients_is_the_dense_norm() -> None:
    ours = parameters()
    for parameter, gradient in zip(ours, gradients(1, sparse=True), strict=True):
        parameter.grad = gradient
    dense = torch.cat([g.flatten() for g in gradients(1, sparse=False)])
    assert gradient_norm(ours) == pytest.approx(float(dense.norm()), rel=1e-6)
    ours[2].grad[0, 0] = float("inf")
    assert gradient_norm(ours) != gradient_norm(ours)
