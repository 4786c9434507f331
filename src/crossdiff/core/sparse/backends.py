"""Which backend serves the sparse step: by name, by device, and by how sparse the code is."""

from __future__ import annotations

import functools
import warnings
from typing import Literal

from crossdiff.core.codes import SparseCode
from crossdiff.core.sparse.kernels import Kernels, KernelsMissing
from crossdiff.core.sparse.plain import DenseChunks, PlainKernels

Backend = Literal["auto", "torch", "compiled", "triton"]


def kernels(backend: Backend, device: str = "cpu") -> Kernels:
    """The operations of a backend; `auto` is Triton's on a CUDA GPU, compiled C++ on a CPU, else PyTorch's.

    Where the automatic choice is missing (no Triton, no compiler) one notice says so and PyTorch's serve.
    """
    if backend != "auto":
        return _load(backend, device)
    return _load_or_plain({"cuda": "triton", "cpu": "compiled"}.get(device, "torch"), device)


@functools.cache
def _load_or_plain(backend: str, device: str) -> Kernels:
    try:
        return _load(backend, device)
    except (KernelsMissing, ModuleNotFoundError) as reason:
        warnings.warn(f"sparse step: {reason}; using PyTorch operations", stacklevel=3)
        return _load("torch", device)


@functools.cache
def _load(backend: str, device: str) -> Kernels:
    match backend:
        case "compiled":
            from crossdiff.core.sparse.compiled import CompiledKernels

            return CompiledKernels.load()
        case "triton":
            from crossdiff.core.sparse.triton_kernels import TritonKernels

            return TritonKernels.load(device)
        case _:
            return PlainKernels()


def suited(chosen: Kernels, code: SparseCode) -> Kernels:
    """The same kernels, or dense products where the code is too dense for them."""
    return DenseChunks() if len(code) > chosen.dense_density * code.n_tokens * code.n_latents else chosen
