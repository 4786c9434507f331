"""The Triton kernels: every operation against PyTorch's, then whole steps.

On a machine without a GPU they run in Triton's interpreter (tests/conftest.py).
"""

from __future__ import annotations

import copy
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from crossdiff.core import dense
from crossdiff.core.codes import SparseCode
from crossdiff.core.sparse import BatchTopKStep, SparseRowAdam
from crossdiff.core.sparse.backends import kernels
from crossdiff.core.sparse.kernels import Backward, ByLatent, Kernels, Scratch
from crossdiff.core.sparse.plain import PlainKernels
from tests.core.sparse.test_step import activations, assert_equal_steps, both, crosscoder, plan

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
N_TOKENS, N_LATENTS, WIDTH = 9, 37, 22


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 16, so that there are several of them."""
    monkeypatch.setattr(importlib.import_module("crossdiff.core.sparse.triton_kernels"), "BLOCK", 16)


@pytest.fixture
def triton() -> Kernels:
    return kernels("triton", DEVICE)


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def some_code() -> SparseCode:
    """About a fifth of the entries; token 4 and many latents have none."""
    mask = (normal(N_TOKENS, N_LATENTS, seed=3) > 0.9) & (torch.arange(N_TOKENS, device=DEVICE) != 4)[:, None]
    token, latent = mask.nonzero(as_tuple=True)
    return SparseCode(token, latent, normal(len(token), seed=4).abs(), N_TOKENS, N_LATENTS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bound", [-10.0, 0.5, 10.0])
def test_candidates_are_those_of_pytorch_in_their_order(triton: Kernels, dtype, bound: float) -> None:
    product = normal(N_TOKENS, N_LATENTS, seed=0).to(dtype)
    cut = (bound + 0.1 * normal(N_LATENTS, seed=1)).to(dtype)
    for mine, expected in zip(triton.above(product, cut), PlainKernels().above(product, cut), strict=True):
        assert torch.equal(mine, expected)


def test_scores_and_reconstructions_are_those_of_pytorch(triton: Kernels) -> None:
    code, x, rows = some_code(), normal(N_TOKENS, WIDTH, seed=5), normal(N_LATENTS, WIDTH, seed=6)
    groups = ByLatent.of(code)
    torch.testing.assert_close(triton.scores(x, rows, code), PlainKernels().scores(x, rows, code))
    x_hat = triton.decode(code, groups, rows)
    torch.testing.assert_close(x_hat, PlainKernels().decode(code, groups, rows))
    assert not bool(x_hat[4].any())


@pytest.mark.parametrize("every", [True, False])
def test_gradients_are_those_of_pytorch_also_for_latents_without_entries(
    triton: Kernels, every: bool
) -> None:
    code, rows = some_code(), normal(N_LATENTS, WIDTH, seed=6)
    groups = ByLatent.of(code, latents=torch.arange(N_LATENTS, device=DEVICE) if every else None)
    batch = Backward(normal(N_TOKENS, WIDTH, seed=7), normal(N_TOKENS, WIDTH, seed=8))
    mine, expected = (
        work.backward(code, groups, batch, rows, scratch=Scratch()) for work in (triton, PlainKernels())
    )
    for name in ("latent", "encoder", "encoder_bias", "decoder"):
        torch.testing.assert_close(getattr(mine, name), getattr(expected, name))


@pytest.mark.parametrize("encode", ["float32", "bfloat16"])
def test_a_step_has_the_gradients_of_dense_autograd(encode: str) -> None:
    made = crosscoder(16, 3).to(DEVICE)
    step = BatchTopKStep(backend="triton", encode=encode, chunk=10)
    for number in range(2):  # the second batch is searched with a guess
        for parameter in made.parameters():
            parameter.grad = None
        xn = activations(5, made, seed=number).to(DEVICE)
        assert_equal_steps(*both(step, made, xn, plan(3, dead=[1, 5, 11], device=DEVICE)))


@pytest.mark.parametrize("inactive", ["decay", "skip"])
def test_steps_move_the_weights_as_pytorchs_do(inactive: str) -> None:
    weights = []
    for backend in ("triton", "torch"):
        made = crosscoder(16, 3).to(DEVICE)
        step = BatchTopKStep(backend=backend, layout="rows")
        optimizer = SparseRowAdam(
            made.parameters(), lr=1e-2, max_norm=0.1, inactive=inactive, backend=backend
        )
        for number in range(3):
            step.gradients(made, activations(5, made, seed=number).to(DEVICE), plan(3, device=DEVICE))
            optimizer.step()
            optimizer.zero_grad()
        weights.append(made)
    for mine, expected in zip(weights[0].parameters(), weights[1].parameters(), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-5)


def test_the_adam_kernel_equals_torchs_clipped_adam() -> None:
    ours = crosscoder(16, 3).to(DEVICE)
    theirs = copy.deepcopy(ours)
    optimizer = SparseRowAdam(ours.parameters(), lr=1e-2, max_norm=0.1, backend="triton")
    oracle = torch.optim.Adam(theirs.parameters(), lr=1e-2)
    for number in range(3):
        xn = activations(5, ours, seed=number).to(DEVICE)
        dense.gradients(ours, xn, plan(3, device=DEVICE))
        dense.gradients(theirs, xn, plan(3, device=DEVICE))
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.1)
        for used in (optimizer, oracle):
            used.step()
            used.zero_grad()
    for mine, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-5)


def compile_for_a_gpu() -> None:
    """Compile every kernel down to the machine code of an H100; needs no GPU. Run in a process of its own."""
    from triton import compile as build
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from crossdiff.core.sparse import triton_kernels

    signatures = {
        "_count": "product *bf16, cut *bf16, counts *i64, n_columns i32, n_blocks i32",
        "_gather": "product *bf16, cut *bf16, start *i64, rows *i64, columns *i64, values *fp32, "
        "n_columns i32, n_blocks i32",
        "_dot": "left *fp32, right *fp32, token *i64, latent *i64, out *fp32, width i32",
        "_bag": "rows *fp32, index *i64, start *i64, weight *fp32, out *fp32, width i32",
        "_latent": "x *fp32, gradient *fp32, decoder *fp32, latent *i64, start *i64, token *i64, "
        "value *fp32, encoder_out *fp32, decoder_out *fp32, bias_out *fp32, width i32",
        "_adam": "weight *fp32, mean *fp32, square *fp32, row_of *i64, gradient *fp32, width i32, "
        "keep1 fp32, add1 fp32, keep2 fp32, add2 fp32, rate fp32, inverse_root fp32, eps fp32, "
        "skip constexpr",
    }
    for name, text in signatures.items():
        size = {"WHOLE": 8192} if name == "_latent" else {"BLOCK": triton_kernels.BLOCK}
        signature = dict(part.split() for part in f"{text}, {next(iter(size))} constexpr".split(", "))
        constants = size | ({"skip": False} if name == "_adam" else {})
        source = ASTSource(fn=getattr(triton_kernels, name), signature=signature, constexprs=constants)
        print(
            name, len(build(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 16}).asm["cubin"])
        )


def run_outside_the_interpreter(program: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[3], env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(DEVICE == "cuda", reason="Triton starts where there is a GPU")
def test_a_triton_that_does_not_start_is_told_of_and_pytorch_serves() -> None:
    program = "from crossdiff.core.sparse import backends as k; print(k._load_or_plain('triton', 'cpu').name)"
    done = run_outside_the_interpreter(program)
    assert done.stdout == "torch\n", done.stderr
    assert "Triton does not start (" in done.stderr
    assert "; using PyTorch operations" in done.stderr


@pytest.mark.slow
def test_the_kernels_compile_to_machine_code_of_a_gpu() -> None:
    done = run_outside_the_interpreter(
        "from tests.core.sparse.test_triton_kernels import compile_for_a_gpu as c; c()"
    )
    assert done.returncode == 0, done.stderr
    sizes = dict(line.split() for line in done.stdout.splitlines())
    assert set(sizes) == {"_count", "_gather", "_dot", "_bag", "_latent", "_adam"}
    assert min(map(int, sizes.values())) > 1000
