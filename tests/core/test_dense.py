from dataclasses import replace

import numpy as np
import pytest
import torch

from crossdiff.core import dense
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dense import StepPlan, gradients
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.sparse import BatchTopKStep
from crossdiff.core.sparsity import L1, BatchTopK, JumpReLU, Penalised, TopK

NONE_DEAD = torch.zeros(0, dtype=torch.int64)
PLAN = StepPlan(
    sparsity=BatchTopK(k=3), k=3, penalty=0.0, loss="squared", auxiliary=1 / 32, auxiliary_k=4, dead=NONE_DEAD
)


def make(**settings) -> Crosscoder:
    crosscoder = Crosscoder(DictionarySettings(n_latents=30, **settings), n_models=2, d_model=6)
    crosscoder.initialise_(torch.Generator().manual_seed(0))
    return crosscoder.double()


def batch(n_tokens: int = 11) -> torch.Tensor:
    return torch.randn(n_tokens, 2, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_batch_top_k_spends_k_per_token_where_the_batch_needs_it() -> None:
    result = gradients(make(), batch(), PLAN)
    assert result.n_active == 33
    assert set(result.terms) == {"reconstruction"}
    assert int(result.fired.sum()) <= 30


def test_gradients_equal_finite_differences_while_the_kept_set_stays() -> None:
    crosscoder, xn = make(), batch()
    gradients(crosscoder, xn, PLAN)
    for name in ("encoder", "decoder", "encoder_bias", "decoder_bias"):
        parameter = getattr(crosscoder, name)
        direction = parameter.grad / parameter.grad.norm()
        step, losses = 1e-6, []
        for sign in (1, -1):
            moved = make()
            with torch.no_grad():
                getattr(moved, name).add_(sign * step * direction)
            losses.append(float(gradients(moved, xn, PLAN).total))
        assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(float(parameter.grad.norm()), rel=1e-5)


def test_dead_latents_alone_receive_the_auxiliary_gradient() -> None:
    crosscoder, xn = make(), batch()
    result = gradients(crosscoder, xn, PLAN)
    silent = (~result.fired).nonzero().squeeze(1)
    assert crosscoder.encoder.grad is not None
    assert bool((crosscoder.encoder.grad[silent] == 0).all())
    with_dead, without = make(), crosscoder
    result = gradients(with_dead, xn, replace(PLAN, dead=silent))
    assert float(result.terms["auxiliary"]) > 0
    assert float(result.total) == pytest.approx(
        float(result.terms["reconstruction"]) + float(result.terms["auxiliary"]) / 32
    )
    assert with_dead.encoder.grad is not None
    assert bool((with_dead.encoder.grad[silent].abs().sum(dim=(1, 2)) > 0).any())
    torch.testing.assert_close(with_dead.encoder.grad[result.fired], without.encoder.grad[result.fired])
    torch.testing.assert_close(with_dead.decoder_bias.grad, without.decoder_bias.grad)


@pytest.mark.parametrize("architecture", ["designated_shared", "dedicated"])
def test_gradients_stay_inside_what_an_architecture_allows(architecture: str) -> None:
    crosscoder = make(architecture=architecture)
    optimizer = torch.optim.Adam(crosscoder.parameters(), lr=0.01)
    for _ in range(5):
        gradients(crosscoder, batch(), PLAN)
        optimizer.step()
        optimizer.zero_grad()
    decoder = crosscoder.decoder.detach()
    if architecture == "dedicated":
        assert bool((decoder[:2, 1] == 0).all())
        assert bool((decoder[2:4, 0] == 0).all())
        assert torch.equal(decoder[4:, 0], decoder[4:, 1])
    else:
        assert torch.equal(decoder[:3, 0], decoder[:3, 1])
        assert not torch.equal(decoder[3:, 0], decoder[3:, 1])


@pytest.mark.parametrize("sparsity", [TopK(k=3), L1(penalty=0.1), JumpReLU(penalty=0.1)])
def test_every_method_has_a_step_that_lowers_its_loss(sparsity) -> None:
    crosscoder, xn = make(), batch()
    if isinstance(sparsity, JumpReLU):
        crosscoder.add_gate_(sparsity.initial_gate)
        crosscoder.double()
    plan = replace(PLAN, sparsity=sparsity, penalty=getattr(sparsity, "penalty", 0.0))
    optimizer = torch.optim.Adam(crosscoder.parameters(), lr=0.003)
    totals = []
    for _ in range(60):
        totals.append(float(gradients(crosscoder, xn, plan).total))
        optimizer.step()
        optimizer.zero_grad()
    assert totals[-1] < 0.8 * totals[0]


def test_top_k_keeps_k_per_token() -> None:
    crosscoder, xn = make(), batch()
    result = gradients(crosscoder, xn, replace(PLAN, sparsity=TopK(k=3)))
    assert result.n_active <= 33


@pytest.mark.parametrize(
    ("sparsity", "gate", "sparsity_term", "revival"),
    [
        (L1(penalty=1.0), None, 0.1 * 2 * 10 + 1 * 7, None),
        (JumpReLU(penalty=1.0, sharpness=0.05), 0.5, 0.1 * np.tanh(1) + np.tanh(0.35), 0),
        (JumpReLU(penalty=1.0), 3.0, 0, 0.1 * 1 * 10 + 2 * 7),
    ],
)
def test_a_designated_latent_pays_its_weight_of_the_penalty(
    sparsity: Penalised, gate: float | None, sparsity_term: float, revival: float | None
) -> None:
    """Codes 2 and 1, code norms 5 + 5 and 3 + 4, weight 0.1 for the first."""
    settings = DictionarySettings(
        n_latents=2, architecture="designated_shared", designated_share=0.5, designated_weight=0.1
    )
    crosscoder = Crosscoder(settings, n_models=2, d_model=2)
    with torch.no_grad():
        crosscoder.decoder.copy_(torch.tensor([[[3, 4], [3, 4]], [[3, 0], [0, 4]]]))
        crosscoder.encoder_bias.copy_(torch.tensor([2.0, 1.0]))
    if gate is not None:
        crosscoder.add_gate_(gate)
    result = gradients(crosscoder.double(), torch.zeros(3, 2, 2).double(), replace(PLAN, sparsity=sparsity))
    assert float(result.terms["sparsity"]) == pytest.approx(sparsity_term, rel=1e-6)
    if revival is not None:
        assert float(result.terms["revival"]) == pytest.approx(revival, rel=1e-6)


def priced_loss(weights: dict[str, np.ndarray], xn: np.ndarray, sparsity: L1 | JumpReLU) -> float:
    """Loss of L1 or JumpReLU with a first fifth of designated latents at weight 0.3, in numpy alone."""
    n_latents = len(weights["encoder_bias"])
    price = np.where(np.arange(n_latents) < n_latents // 5, 0.3, 1.0)
    norm = np.sqrt((weights["decoder"] ** 2).sum(2)).sum(1)
    pre = np.einsum("tmd,lmd->tl", xn, weights["encoder"]) + weights["encoder_bias"]
    if isinstance(sparsity, L1):
        code, revival = np.maximum(pre, 0), 0.0
        cost = code * norm
    else:
        gate = np.exp(weights["log_gate"])
        code = np.where(pre > gate, pre, 0)
        cost = np.tanh(sparsity.sharpness * code * norm)
        revival = sparsity.revival * (price * norm * np.maximum(gate - pre, 0)).sum(1).mean()
    x_hat = np.einsum("tl,lmd->tmd", code, weights["decoder"]) + weights["decoder_bias"]
    reconstruction = ((xn - x_hat) ** 2).sum(2).mean()
    return float(reconstruction + sparsity.penalty * (price * cost).sum(1).mean() + revival)


@pytest.mark.parametrize("sparsity", [L1(penalty=0.4), JumpReLU(penalty=0.4, revival=0.2)])
def test_penalties_with_designated_latents_have_the_gradients_of_the_formula(
    sparsity: L1 | JumpReLU,
) -> None:
    crosscoder, xn = (
        make(architecture="designated_shared", designated_share=0.2, designated_weight=0.3),
        batch(),
    )
    if isinstance(sparsity, JumpReLU):
        crosscoder.add_gate_(0.3)
        crosscoder.double()
    weights = {name: value.detach().numpy().copy() for name, value in crosscoder.named_parameters()}
    result = gradients(crosscoder, xn, replace(PLAN, sparsity=sparsity, penalty=sparsity.penalty))
    assert float(result.total) == pytest.approx(priced_loss(weights, xn.numpy(), sparsity), rel=1e-6)
    for name in ("encoder", "encoder_bias", "decoder", "decoder_bias"):
        gradient = crosscoder.get_parameter(name).grad
        assert gradient is not None
        size = float(gradient.norm())
        losses = [
            priced_loss(
                {**weights, name: weights[name] + step * gradient.numpy() / size}, xn.numpy(), sparsity
            )
            for step in (1e-6, -1e-6)
        ]
        assert (losses[0] - losses[1]) / 2e-6 == pytest.approx(size, rel=1e-5)


def reference_step(
    weights: dict[str, torch.Tensor], x: torch.Tensor, *, k: int, mix: float, masked: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Gradients of a BatchTopK step in float64 autograd, written without anything of crossdiff.

    `masked` [latent, model] is False where weights do not exist; they are multiplied by it. The loss is that
    of a pair: mean over tokens of (|e_b|^2 + |e_t|^2 + 2 mix <e_b, e_t>) / 2.
    """
    free = {name: value.double().clone().requires_grad_(True) for name, value in weights.items()}
    encoder, decoder = (free[name] * masked[:, :, None] for name in ("encoder", "decoder"))
    code = torch.relu(torch.einsum("tmd,lmd->tl", x.double(), encoder) + free["encoder_bias"])
    scaled = (code * decoder.norm(dim=2).sum(dim=1)).detach().flatten()
    kept = torch.zeros_like(scaled)
    kept[scaled.argsort(descending=True)[: k * len(x)]] = 1
    code = code * kept.view_as(code)
    error = x.double() - torch.einsum("tl,lmd->tmd", code, decoder) - free["decoder_bias"]
    base, tuned = error[:, 0], error[:, 1]
    total = (base * base + tuned * tuned + 2 * mix * base * tuned).sum() / (2 * len(x))
    total.backward()
    return {"total": total.detach(), **{name: free[name].grad for name in free}}  # type: ignore[dict-item]


@pytest.mark.parametrize("path", ["dense", "torch", "compiled"])
@pytest.mark.parametrize("mix", [0.0, -0.4, -1.0])
@pytest.mark.parametrize("architecture", ["standard", "dedicated_feature"])
def test_float32_gradients_equal_an_independent_reference(architecture: str, mix: float, path: str) -> None:
    """The two dedicated partitions (3 of 30 each) and the mixed loss, to 1e-5 of every gradient's norm."""
    crosscoder = make(architecture=architecture, dedicated_share=0.1, initial_decoders="independent").float()
    masked = torch.ones(30, 2)
    if architecture == "dedicated_feature":
        masked[:3, 1] = masked[3:6, 0] = 0
    weights = {name: value.detach() for name, value in crosscoder.named_parameters()}
    expected = reference_step(weights, batch(64), k=3, mix=mix, masked=masked)
    plan = replace(PLAN, mix=mix)
    step = gradients if path == "dense" else BatchTopKStep(backend=path).gradients  # type: ignore[arg-type]
    result = step(crosscoder, batch(64).float(), plan)
    assert float(result.total) == pytest.approx(float(expected["total"]), rel=1e-5)
    for name, parameter in crosscoder.named_parameters():
        assert parameter.grad is not None
        gradient = parameter.grad.to_dense().double()
        assert (gradient - expected[name]).norm() <= 1e-5 * expected[name].norm(), name
        if name in ("encoder", "decoder"):
            assert not bool(gradient[masked == 0].any())


def test_the_mixed_loss_of_a_3_4_5_triangle() -> None:
    """e_b = (3, 4), e_t = (0, 2): (25 + 4 + 2 mix 8) / 2; at -1 it is |e_t - e_b|^2 / 2 = 13 / 2."""
    x = torch.tensor([[[3.0, 4.0], [0.0, 2.0]]])
    for mix, expected in ((0.0, 14.5), (-0.5, 10.5), (-1.0, 6.5)):
        found = dense.reconstruction_loss(x, torch.zeros_like(x), form="squared", mix=mix)
        assert float(found) == pytest.approx(expected)


def test_both_forms_of_the_reconstruction_loss_on_a_3_4_5_triangle() -> None:
    x = torch.tensor([[[3.0, 4.0], [0.0, 2.0]]])
    zero = torch.zeros_like(x)
    assert float(dense.reconstruction_loss(x, zero, form="norm")) == (5 + 2) / 2
    assert float(dense.reconstruction_loss(x, zero, form="squared")) == (25 + 4) / 2


def test_a_perfect_reconstruction_has_a_finite_gradient() -> None:
    x_hat = torch.ones(2, 2, 3, requires_grad=True)
    dense.reconstruction_loss(torch.ones(2, 2, 3), x_hat, form="norm").backward()
    assert x_hat.grad is not None
    assert bool((x_hat.grad == 0).all())


def test_the_auxiliary_loss_is_one_for_the_mean_and_zero_for_a_perfect_decoding() -> None:
    residual = torch.randn(50, 2, 3)
    residual -= residual.mean(0)
    silent = dense.auxiliary_loss(residual, torch.zeros(50, 4), torch.randn(4, 2, 3))
    torch.testing.assert_close(silent, torch.tensor(1.0))
    code, decoder = torch.rand(50, 4), torch.randn(4, 2, 3)
    exact = torch.einsum("tl,lmd->tmd", code, decoder)
    assert float(dense.auxiliary_loss(exact, code, decoder)) < 1e-10


def test_the_auxiliary_loss_of_a_constant_residual_is_zero() -> None:
    assert float(dense.auxiliary_loss(torch.ones(1, 2, 3), torch.ones(1, 4), torch.ones(4, 2, 3))) == 0


def test_the_auxiliary_code_keeps_the_largest_scaled_dead_latents_per_token() -> None:
    code = dense.auxiliary_code(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([9.0, 1.0, 1.0]), k=2)
    assert code.tolist() == [[1.0, 0.0, 3.0]]


def test_the_gate_learns_by_the_rectangular_estimator() -> None:
    """At pre = gate + 0.1, inside the window of width 1: d/dlog_gate = -gate^2 / width."""
    pre = torch.tensor([[0.6], [5.0]], requires_grad=True)
    log_gate = torch.tensor([0.5]).log().requires_grad_()
    code = dense.Jump.apply(pre, log_gate, 1.0)
    assert isinstance(code, torch.Tensor)
    code.sum().backward()
    assert log_gate.grad is not None
    assert pre.grad is not None
    torch.testing.assert_close(log_gate.grad, torch.tensor([-0.25]))
    assert pre.grad.flatten().tolist() == [1.0, 1.0]
