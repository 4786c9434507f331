from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossdiff.core import dense
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dense import StepPlan, StepResult
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.sparse import BatchTopKStep
from crossdiff.core.sparsity import BatchTopK

BACKENDS = ["torch", "compiled"]


def crosscoder(
    n_latents: int = 96, d_model: int = 8, *, n_models: int = 2, seed: int = 0, **options
) -> Crosscoder:
    made = Crosscoder(DictionarySettings(n_latents=n_latents, **options), n_models=n_models, d_model=d_model)
    generator = torch.Generator().manual_seed(seed)
    for parameter in made.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    for parameter in (made.encoder, made.encoder_bias):
        parameter.data = on_grid(parameter.data)
    return made


def on_grid(values: torch.Tensor) -> torch.Tensor:
    """Eighths: products and sums of such numbers are exact, so that selection can be compared exactly."""
    return (values * 8).round() / 8


def activations(n_tokens: int, like: Crosscoder, *, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return on_grid(torch.randn(n_tokens, like.n_models, like.d_model, generator=generator))


def plan(
    k: int, *, loss: str = "norm", dead: list[int] | None = None, auxiliary_k: int = 4, device: str = "cpu"
) -> StepPlan:
    latents = torch.tensor(dead or [], dtype=torch.long, device=device)
    return StepPlan(BatchTopK(k=k), k, 0.0, loss, 1 / 32, auxiliary_k, latents)


def both(step: BatchTopKStep, made: Crosscoder, xn: torch.Tensor, what: StepPlan):
    """Results and gradients of the sparse and of the dense step from the same weights."""
    other = copy.deepcopy(made)
    return (step.gradients(made, xn, what), made), (dense.gradients(other, xn, what), other)


def assert_equal_steps(
    ours: tuple[StepResult, Crosscoder], oracle: tuple[StepResult, Crosscoder], *, tolerance: float = 1e-5
) -> None:
    for name, parameter in oracle[1].named_parameters():
        gradient, expected = ours[1].get_parameter(name).grad.to_dense(), parameter.grad
        assert (gradient - expected).norm() <= tolerance * expected.norm() + 1e-2 * tolerance, name
    mine, theirs = ours[0], oracle[0]
    assert torch.equal(mine.fired, theirs.fired)
    assert mine.n_active == theirs.n_active
    assert mine.terms.keys() == theirs.terms.keys()
    for pair in (
        (mine.total, theirs.total),
        (mine.smallest_kept, theirs.smallest_kept),
        (mine.squared_error, theirs.squared_error),
        *((mine.terms[name], theirs.terms[name]) for name in mine.terms),
    ):
        torch.testing.assert_close(*pair, rtol=1e-5, atol=1e-7, equal_nan=True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", ["dense", "rows"])
@settings(max_examples=15, deadline=None)
@given(
    n_tokens=st.integers(1, 40),
    n_latents=st.integers(1, 130),
    n_models=st.integers(1, 3),
    d_model=st.integers(1, 20),
    share=st.floats(0, 1),
    loss=st.sampled_from(["norm", "squared"]),
    norm=st.sampled_from(["sum", "concat", "mixed", "none"]),
    seed=st.integers(0, 1000),
)
def test_gradients_equal_dense_autograd_on_random_sizes(
    backend, layout, n_tokens, n_latents, n_models, d_model, share, loss, norm, seed
) -> None:
    made = crosscoder(n_latents, d_model, n_models=n_models, seed=seed, code_norm=norm)
    k = max(1, round(share * n_latents))
    step = BatchTopKStep(backend=backend, layout=layout, chunk=48)
    for number in range(2):  # the second batch is searched with a guess
        for parameter in made.parameters():
            parameter.grad = None
        assert_equal_steps(*both(step, made, activations(n_tokens, made, seed=number), plan(k, loss=loss)))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", ["dense", "rows"])
@pytest.mark.parametrize("dead", [[5], [0, 3, 4, 90], list(range(0, 96, 3)), list(range(96))])
def test_auxiliary_gradients_equal_dense_autograd(backend: str, layout: str, dead: list[int]) -> None:
    made = crosscoder()
    step = BatchTopKStep(backend=backend, layout=layout)
    assert_equal_steps(*both(step, made, activations(32, made), plan(3, dead=dead)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_batch_of_one_has_no_auxiliary_gradient(backend: str) -> None:
    made = crosscoder()
    ours, oracle = both(BatchTopKStep(backend=backend), made, activations(1, made), plan(3, dead=[1, 2]))
    assert_equal_steps(ours, oracle)
    assert float(ours[0].terms["auxiliary"]) == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_of_two_batches_add_up(backend: str) -> None:
    for layout in ("dense", "rows"):
        made, other = crosscoder(), crosscoder()
        step = BatchTopKStep(backend=backend, layout=layout)
        for number in range(2):
            xn = activations(16, made, seed=number)
            ours = step.gradients(made, xn, plan(3)), made
            oracle = dense.gradients(other, xn, plan(3)), other
        assert_equal_steps(ours, oracle)


@pytest.mark.parametrize("architecture", ["designated_shared", "dedicated_feature", "dedicated", "diff_sae"])
def test_architectures_project_the_gradient_as_the_dense_step_does(architecture: str) -> None:
    models = 1 if architecture == "diff_sae" else 2
    made = crosscoder(architecture=architecture, n_models=models)
    step = BatchTopKStep(backend="torch", layout="rows")
    assert_equal_steps(*both(step, made, activations(16, made), plan(3)))


def test_perfectly_reconstructed_tokens_have_zero_gradient() -> None:
    made = crosscoder()
    made.encoder_bias.data.fill_(-100.0)
    made.decoder_bias.data.fill_(1.0)
    xn = torch.ones(4, 2, 8)
    assert_equal_steps(*both(BatchTopKStep(backend="torch"), made, xn, plan(3)))


def test_float64_gradients_equal_dense_autograd_to_rounding() -> None:
    made = crosscoder().double()
    xn = activations(32, made).double()
    ours, oracle = both(BatchTopKStep(backend="torch"), made, xn, plan(3, dead=[1, 2, 3]))
    assert_equal_steps(ours, oracle, tolerance=1e-13)


def test_the_guess_is_part_of_the_saved_state() -> None:
    made, step = crosscoder(), BatchTopKStep(backend="torch")
    step.gradients(made, activations(32, made), plan(3))
    assert step.state_dict()["cut"] > 0


def test_autocast_around_the_step_changes_nothing() -> None:
    made, other = crosscoder(), crosscoder()
    xn = activations(32, made)
    BatchTopKStep(backend="torch").gradients(made, xn, plan(3))
    with torch.autocast("cpu", torch.bfloat16):
        BatchTopKStep(backend="torch").gradients(other, xn, plan(3))
    assert torch.equal(made.encoder.grad, other.encoder.grad)
