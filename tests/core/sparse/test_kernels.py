"""Which operations serve where, and what happens when they cannot be had."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from crossdiff.core.codes import SparseCode
from crossdiff.core.sparse import BatchTopKStep
from crossdiff.core.sparse import backends as choice
from crossdiff.core.sparse.backends import kernels
from crossdiff.core.sparse.compiled import CompiledKernels
from crossdiff.core.sparse.kernels import ByLatent, FusedAdam, KernelsMissing
from tests.core.sparse.test_step import activations, crosscoder, plan


@pytest.fixture(autouse=True)
def forget_choices() -> Iterator[None]:
    """Choices are remembered for the life of a process."""
    remembered = (choice._load_or_plain, choice._load, CompiledKernels.load)
    for function in remembered:
        function.cache_clear()
    yield
    for function in remembered:
        function.cache_clear()


def test_without_a_compiler_pytorchs_operations_serve_after_one_notice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with warnings.catch_warnings(record=True) as said:
        assert kernels("auto").name == "torch"
        step, made = BatchTopKStep(), crosscoder()
        for number in range(3):
            step.gradients(made, activations(16, made, seed=number), plan(3))
    notices = [str(warning.message) for warning in said if "sparse step" in str(warning.message)]
    assert notices == ["sparse step: no C++ compiler found; using PyTorch operations"]
    with pytest.raises(KernelsMissing):
        kernels("compiled")


def test_a_compiler_that_fails_is_quoted_in_the_notice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "broken-g++"
    broken.write_text("#!/bin/sh\necho 'fatal: no such target' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.warns(UserWarning, match=r"broken-g\+\+ failed: fatal: no such target; using PyTorch"):
        assert kernels("auto").name == "torch"
    assert list((tmp_path / "cache" / "crossdiff" / "kernels").iterdir()) == []


def test_a_gpu_without_triton_is_served_by_pytorch_after_a_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "crossdiff.core.sparse.triton_kernels", raising=False)
    with pytest.warns(UserWarning, match="triton.*; using PyTorch operations"):
        assert kernels("auto", "cuda").name == "torch"


def test_other_devices_have_pytorchs_operations_without_a_notice() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kernels("auto", "mps").name == "torch"
        assert not isinstance(kernels("torch"), FusedAdam)


def test_groups_list_the_tokens_of_every_active_latent_in_order() -> None:
    code = SparseCode(
        torch.tensor([0, 0, 1, 2]), torch.tensor([3, 7, 3, 5]), torch.tensor([1.0, 2.0, 3.0, 4.0]), 3, 8
    )
    groups = ByLatent.of(code)
    assert groups.latent.tolist() == [3, 5, 7]
    assert groups.start.tolist() == [0, 2, 3, 4]
    assert groups.token.tolist() == [0, 1, 2, 0]
    assert code.value[groups.order].tolist() == [1, 3, 4, 2]
    assert ByLatent.of(code, latents=torch.tensor([2, 3, 5, 7])).start.tolist() == [0, 0, 2, 3, 4]


def test_the_largest_per_token_are_positive_and_of_equals_the_lowest_column() -> None:
    pre = torch.tensor(
        [[1.0, 4.0, 2.0, 2.0, 2.0], [3.0, -1.0, 0.0, -2.0, -0.5], [-1.0, -1.0, 0.0, 0.0, -1.0]]
    )
    norm = torch.tensor([4.0, 0.5, 1.0, 1.0, 1.0])  # scaled, first token: 4, 2, 2, 2, 2
    token, column, value = CompiledKernels.load().largest_per_token(pre, norm, 3)
    assert token.tolist() == [0, 0, 0, 1]
    assert column.tolist() == [0, 1, 2, 0]
    assert value.tolist() == [1.0, 4.0, 2.0, 3.0]
