from __future__ import annotations

import copy

import pytest
import torch

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dense import StepPlan, gradients
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.sparse.delta_step import DeltaTopKStep
from crossdiff.core.sparsity import BatchTopK


def make() -> Crosscoder:
    options = {
        "delta_share": 0.2,
        "delta_k_share": 0.25,
        "delta_weight": 0.7,
        "initial_decoders": "independent",
    }
    settings = DictionarySettings(n_latents=30, architecture="delta", **options)
    crosscoder = Crosscoder(settings, n_models=2, d_model=6)
    crosscoder.initialise_(torch.Generator().manual_seed(0))
    assert crosscoder.delta_ratio is not None
    crosscoder.delta_ratio.fill_(1.7)  # decides at inference, and among dead latents
    return crosscoder


def batch() -> torch.Tensor:
    return torch.randn(64, 2, 6, generator=torch.Generator().manual_seed(1))


def plan(form: str, dead: list[int]) -> StepPlan:
    return StepPlan(BatchTopK(k=4), 4, 0.0, form, 1 / 32, 2, torch.tensor(dead, dtype=torch.long))  # type: ignore[arg-type]


def delta_reference(
    weights: dict[str, torch.Tensor], x: torch.Tensor, *, form: str, weight: float
) -> dict[str, torch.Tensor]:
    """A step of a Delta-Crosscoder (30 latents: D the first 6, k 1 of 4) in float64, without crossdiff."""
    free = {name: value.double().clone().requires_grad_(True) for name, value in weights.items()}
    x, encoder, decoder = x.double(), free["encoder"], free["decoder"]
    code = torch.relu(torch.einsum("tmd,lmd->tl", x, encoder) + free["encoder_bias"])
    scaled = (code * decoder.norm(dim=2).sum(dim=1)).detach()
    kept = torch.zeros_like(scaled)
    for latents, k in ((range(6), 1), (range(6, 30), 3)):
        ranked = sorted((-float(scaled[t, j]), t, j) for t in range(len(x)) for j in latents)
        for _, t, j in ranked[: k * len(x)]:
            kept[t, j] = 1
    code = code * kept
    error = x - torch.einsum("tl,lmd->tmd", code, decoder) - free["decoder_bias"]
    missed = (x[:, 1] - x[:, 0]) - code[:, :6] @ (decoder[:6, 1] - decoder[:6, 0])
    size = (lambda e: (e * e).sum(-1)) if form == "squared" else (lambda e: (e * e).sum(-1).sqrt())
    reconstruction, delta = size(error).mean(), size(missed).mean()
    (reconstruction + weight * delta).backward()
    return {"reconstruction": reconstruction, "delta": delta, **{name: free[name].grad for name in free}}  # type: ignore[dict-item]


@pytest.mark.parametrize("path", ["dense", "torch", "compiled"])
@pytest.mark.parametrize("form", ["norm", "squared"])
def test_gradients_of_a_delta_crosscoder_equal_an_independent_reference(form: str, path: str) -> None:
    crosscoder = make()
    weights = {name: value.detach() for name, value in crosscoder.named_parameters()}
    expected = delta_reference(weights, batch(), form=form, weight=0.7)
    step = gradients if path == "dense" else DeltaTopKStep(backend=path).gradients
    for number in range(2):  # the second time the search starts from a guess
        crosscoder.zero_grad()
        result = step(crosscoder, batch(), plan(form, []))
        for term in ("reconstruction", "delta"):
            assert float(result.terms[term]) == pytest.approx(float(expected[term]), rel=1e-5), number
        for name, parameter in crosscoder.named_parameters():
            assert parameter.grad is not None
            gradient = parameter.grad.to_dense().double()
            assert (gradient - expected[name]).norm() <= 1e-5 * expected[name].norm(), name


@pytest.mark.parametrize("backend", ["torch", "compiled"])
def test_thresholds_and_the_auxiliary_term_are_those_of_the_dense_step(backend: str) -> None:
    ours, oracle = make(), make()
    found = DeltaTopKStep(backend=backend).gradients(ours, batch(), plan("squared", [1, 4, 9, 20]))
    expected = gradients(oracle, batch(), plan("squared", [1, 4, 9, 20]))
    assert found.n_active == expected.n_active == 4 * 64
    assert torch.equal(found.fired, expected.fired)
    for name in ("total", "smallest_kept", "smallest_delta", "squared_error"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-5, atol=0)
    assert found.terms["auxiliary"] > 0
    for name, parameter in oracle.named_parameters():
        torch.testing.assert_close(
            ours.get_parameter(name).grad.to_dense(), parameter.grad, rtol=1e-4, atol=1e-6
        )


def test_gradients_of_two_batches_add_up() -> None:
    once = make()
    DeltaTopKStep(backend="torch").gradients(once, batch(), plan("squared", []))
    twice, step = copy.deepcopy(make()), DeltaTopKStep(backend="torch")
    for _ in range(2):
        step.gradients(twice, batch(), plan("squared", []))
    torch.testing.assert_close(twice.decoder.grad, 2 * once.decoder.grad)
