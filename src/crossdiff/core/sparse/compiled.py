"""The sparse step's operations in C++ (`kernels.cpp`), built at first use and kept in a cache."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from crossdiff.core.axes import ActiveIndices, ActiveValues
from crossdiff.core.codes import SparseCode
from crossdiff.core.sparse.kernels import ByLatent, RowGradients, Rows, starts

SOURCE = Path(__file__).with_name("kernels.cpp")
FLAGS = (
    "-O3", "-march=native", "-mprefer-vector-width=512", "-fno-math-errno", "-fno-trapping-math",
    "-fopenmp", "-std=c++17", "-shared", "-fPIC", "-Wno-psabi",
)  # fmt: skip
PORTABLE_FLAGS = tuple(flag for flag in FLAGS if not flag.startswith("-m"))


class CompilerMissing(RuntimeError):
    """No compiled operations on this machine, and why."""


class AdamFactors(NamedTuple):
    """`m = beta1 m + (1 - beta1) clip g`, `v` alike, `w -= rate m / (sqrt(v) / root_correction + eps)`."""

    clip: float
    beta1: float
    beta2: float
    rate: float
    root_correction: float
    eps: float


class CompiledKernels:
    """float32 on a CPU; sums are in a fixed order, so equal inputs give equal bits for any thread count."""

    name = "compiled"

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    @classmethod
    @cache
    def load(cls) -> CompiledKernels:
        """Build the library if this machine has not yet, and open it; CompilerMissing where that fails."""
        return cls(ctypes.CDLL(str(build())))

    def above(self, product: Tensor, cut: Tensor) -> tuple[ActiveIndices, ActiveIndices, ActiveValues]:
        """Marks as bit masks, then the marked entries."""
        kind = "bfloat16" if product.dtype == torch.bfloat16 else "float32"
        n_rows, n_columns = product.shape
        bits = torch.empty(n_rows, (n_columns + 63) // 64, dtype=torch.int64)
        counts = torch.empty(n_rows, dtype=torch.int64)
        self._call(f"mark_{kind}", product, cut.float(), n_rows, n_columns, bits, counts)
        start = starts(counts)
        row, column = torch.empty(2, int(start[-1]), dtype=torch.int64)
        value = torch.empty(row.shape[0])
        self._call(f"gather_{kind}", product, bits, start, n_rows, n_columns, row, column, value)
        return row, column, value

    def scores(self, x: Rows, encoder: Tensor, code: SparseCode) -> ActiveValues:
        """Dot products, latent by latent."""
        groups, out = ByLatent.of(code), torch.empty_like(code.value)
        self._call(
            "scores", groups.latent, groups.start, groups.token, groups.order, groups.latent.shape[0],
            x, encoder, x.shape[1], out,
        )  # fmt: skip
        return out

    def decode(self, code: SparseCode, decoder: Tensor) -> Rows:
        """Weighted sums of decoder rows, token by token."""
        start = starts(torch.bincount(code.token, minlength=code.n_tokens))
        out = torch.empty(code.n_tokens, decoder.shape[1])
        self._call("decode", start, code.latent, code.value, code.n_tokens, decoder, decoder.shape[1], out)
        return out

    def backward(
        self, code: SparseCode, groups: ByLatent, x: Rows, gradient: Rows, decoder: Tensor
    ) -> RowGradients:
        """One pass over the kept entries, latent by latent."""
        shape = (groups.latent.shape[0], x.shape[1])
        encoder, bias, directions = torch.empty(shape), torch.empty(shape[0]), torch.empty(shape)
        self._call(
            "backward", groups.latent, groups.start, groups.token, groups.order, shape[0], code.value,
            x, gradient, decoder, shape[1], encoder, bias, directions,
        )  # fmt: skip
        return RowGradients(groups.latent, encoder, bias, directions)

    def adam(
        self,
        tensors: tuple[Tensor, Tensor, Tensor],
        rows: Tensor,
        values: Tensor,
        factors: AdamFactors,
        *,
        skip: bool,
    ) -> None:
        """Adam on (parameter, first, second moment) in place; `rows` have gradients, the others 0 or none."""
        n_rows = tensors[0].shape[0]
        row_of = torch.full((n_rows,), -1, dtype=torch.int64)
        row_of[rows] = torch.arange(rows.shape[0])
        width = tensors[0].numel() // max(n_rows, 1)
        self._call("adam", n_rows, width, row_of, values, *tensors, *factors, int(skip))

    def _call(self, name: str, *arguments: Tensor | int | float) -> None:
        """Call a kernel: tensors go as pointers, ints as int64, floats as double, the thread count last."""
        for argument in arguments:
            assert not isinstance(argument, Tensor) or (
                argument.is_contiguous() and argument.device.type == "cpu"
            )
        kernel = getattr(self._library, name)
        kernel.restype = None
        kernel(*map(_argument, arguments), ctypes.c_int(torch.get_num_threads()))


def build() -> Path:
    """The compiled library, from the cache where it is there; the key holds source, flags and machine."""
    compiler = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")
    if compiler is None:
        raise CompilerMissing("no C++ compiler found")
    key = hashlib.sha256("\n".join((SOURCE.read_text(), *FLAGS, compiler, _machine())).encode()).hexdigest()[
        :16
    ]
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "crossdiff" / "kernels"
    library = folder / f"{key}.so"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _compile(compiler, library)
    return library


def _compile(compiler: str, library: Path) -> None:
    """Compile aside and rename, so that a killed or a parallel build leaves nothing broken."""
    handle, draft = tempfile.mkstemp(suffix=".so", dir=library.parent)
    os.close(handle)
    for flags in (FLAGS, PORTABLE_FLAGS):
        done = subprocess.run(
            [compiler, *flags, str(SOURCE), "-o", draft], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            os.replace(draft, library)
            return
    os.unlink(draft)
    raise CompilerMissing(f"{compiler} failed: {done.stderr.strip().splitlines()[-1]}")


def _machine() -> str:
    """What -march=native depends on: a cache may be shared between machines."""
    information = Path("/proc/cpuinfo")
    if not information.exists():
        return platform.processor()
    lines = information.read_text().splitlines()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def _argument(value: Tensor | int | float) -> ctypes.c_void_p | ctypes.c_int64 | ctypes.c_double:
    match value:
        case Tensor():
            return ctypes.c_void_p(value.data_ptr())
        case int():
            return ctypes.c_int64(value)
        case float():
            return ctypes.c_double(value)
