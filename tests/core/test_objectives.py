import torch

from crossdiff.core import objectives


def test_both_forms_of_the_reconstruction_loss_on_a_3_4_5_triangle() -> None:
    x = torch.tensor([[[3.0, 4.0], [0.0, 2.0]]])
    zero = torch.zeros_like(x)
    assert float(objectives.reconstruction_loss(x, zero, form="norm")) == (5 + 2) / 2
    assert float(objectives.reconstruction_loss(x, zero, form="squared")) == (25 + 4) / 2


def test_a_perfect_reconstruction_has_a_finite_gradient() -> None:
    x_hat = torch.ones(2, 2, 3, requires_grad=True)
    objectives.reconstruction_loss(torch.ones(2, 2, 3), x_hat, form="norm").backward()
    assert x_hat.grad is not None
    assert bool((x_hat.grad == 0).all())


def test_the_auxiliary_loss_is_one_for_the_mean_and_zero_for_a_perfect_decoding() -> None:
    residual = torch.randn(50, 2, 3)
    residual -= residual.mean(0)
    silent = objectives.auxiliary_loss(residual, torch.zeros(50, 4), torch.randn(4, 2, 3))
    torch.testing.assert_close(silent, torch.tensor(1.0))
    code, decoder = torch.rand(50, 4), torch.randn(4, 2, 3)
    exact = torch.einsum("tl,lmd->tmd", code, decoder)
    assert float(objectives.auxiliary_loss(exact, code, decoder)) < 1e-10


def test_the_auxiliary_loss_of_a_constant_residual_is_zero() -> None:
    assert float(objectives.auxiliary_loss(torch.ones(1, 2, 3), torch.ones(1, 4), torch.ones(4, 2, 3))) == 0


def test_the_auxiliary_code_keeps_the_largest_scaled_dead_latents_per_token() -> None:
    code = objectives.auxiliary_code(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([9.0, 1.0, 1.0]), k=2)
    assert code.tolist() == [[1.0, 0.0, 3.0]]


def test_penalties_by_hand() -> None:
    code, norm = torch.tensor([[1.0, 0.0], [2.0, 3.0]]), torch.tensor([2.0, 1.0])
    assert float(objectives.l1_penalty(code, norm)) == (2 + 7) / 2
    expected = (torch.tensor(8.0).tanh() + torch.tensor(16.0).tanh() + torch.tensor(12.0).tanh()) / 2
    torch.testing.assert_close(objectives.tanh_penalty(code, norm, sharpness=4.0), expected)


def test_the_gate_learns_by_the_rectangular_estimator() -> None:
    """At pre = gate + 0.1, inside the window of width 1: d/dlog_gate = -gate^2 / width."""
    pre = torch.tensor([[0.6], [5.0]], requires_grad=True)
    log_gate = torch.tensor([0.5]).log().requires_grad_()
    code = objectives.Jump.apply(pre, log_gate, 1.0)
    assert isinstance(code, torch.Tensor)
    code.sum().backward()
    assert log_gate.grad is not None
    assert pre.grad is not None
    torch.testing.assert_close(log_gate.grad, torch.tensor([-0.25]))
    assert pre.grad.flatten().tolist() == [1.0, 1.0]
