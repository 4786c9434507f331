"""The sparse step's operations in C++ (`marks.cpp`, `rows.cpp`), built at first use into a cache."""

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

import torch
from torch import Tensor

from crossdiff.core.codes import ActiveIndices, ActiveValues, SparseCode
from crossdiff.core.sparse.kernels import (
    AdamFactors,
    Backward,
    ByLatent,
    KernelsMissing,
    RowGradients,
    Rows,
    Scratch,
    starts,
)

SLAB = 64
"""Columns that the kernels work on at a time."""


class CompiledKernels:
    """float32 on a CPU; sums are in a fixed order, so equal inputs give equal bits for any thread count."""

    name = "compiled"
    dense_density = 0.25

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library, self._scratch = library, Scratch()

    @classmethod
    @cache
    def load(cls) -> CompiledKernels:
        """Build the library if this machine has not yet, and open it; KernelsMissing where that fails."""
        return cls(ctypes.CDLL(str(build())))

    def above(self, product: Tensor, cut: Tensor) -> tuple[ActiveIndices, ActiveIndices, ActiveValues]:
        """Marks as bit masks, then the marked entries."""
        return self._marked(f"mark_{_kind(product)}", product, cut.float())

    def largest_per_token(
        self, pre: Tensor, norm: Tensor, k: int
    ) -> tuple[ActiveIndices, ActiveIndices, ActiveValues]:
        """Marks above the k-th largest of every token's positive scaled codes, found bit by bit."""
        return self._marked("mark_largest", pre, norm, k)

    def _marked(
        self, kernel: str, matrix: Tensor, *arguments: Tensor | int
    ) -> tuple[ActiveIndices, ActiveIndices, ActiveValues]:
        n_rows, n_columns = matrix.shape
        bits = torch.empty(n_rows, (n_columns + 63) // 64, dtype=torch.int64)
        counts = torch.empty(n_rows, dtype=torch.int64)
        self._call(kernel, matrix, *arguments, n_rows, n_columns, bits, counts)
        start = starts(counts)
        row, column = torch.empty(2, int(start[-1]), dtype=torch.int64)
        value = torch.empty(row.shape[0])
        self._call(f"gather_{_kind(matrix)}", matrix, bits, start, n_rows, n_columns, row, column, value)
        return row, column, value

    def scores(self, x: Rows, encoder: Tensor, code: SparseCode) -> ActiveValues:
        """Dot products, latent by latent."""
        groups = ByLatent.of(code)
        grouped, out = torch.empty_like(code.value), torch.empty_like(code.value)
        self._call("scores", *_groups(groups), self._packed(x), x.shape[0], encoder, x.shape[1], grouped)
        out[groups.order] = grouped
        return out

    def decode(self, code: SparseCode, groups: ByLatent, decoder: Tensor) -> Rows:
        """Decoder rows added to the tokens that use them, a slab of columns at a time."""
        out = torch.empty(code.n_tokens, decoder.shape[1])
        value = code.value[groups.order]
        self._call("decode", *_groups(groups), value, decoder, decoder.shape[1], code.n_tokens, out)
        return out

    def backward(
        self, code: SparseCode, groups: ByLatent, batch: Backward, decoder: Tensor, *, scratch: Scratch
    ) -> RowGradients:
        """Latent by latent, a slab of columns at a time."""
        n_tokens, width = batch.x.shape
        shape = groups.latent.shape[0], width
        encoder, directions = (scratch.take(name, shape, batch.x) for name in ("encoder", "decoder"))
        bias = torch.empty(shape[0])
        self._call(
            "backward", *_groups(groups), code.value[groups.order],
            self._packed(batch.x), self._packed(batch.gradient, "gradient"), n_tokens, decoder, width,
            torch.empty_like(code.value), encoder, bias, directions,
        )  # fmt: skip
        return RowGradients(groups.latent, encoder, bias, directions)

    def _packed(self, rows: Rows, name: str = "x") -> Tensor:
        """The rows with their columns cut into slabs."""
        n_rows, width = rows.shape
        packed = self._scratch.take(name, (-(-width // SLAB), n_rows, SLAB), rows)
        self._call("pack", rows, n_rows, width, packed)
        return packed

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


def _kind(matrix: Tensor) -> str:
    return "bfloat16" if matrix.dtype == torch.bfloat16 else "float32"


def _groups(groups: ByLatent) -> tuple[Tensor, Tensor, Tensor, int]:
    return groups.latent, groups.start, groups.token, groups.latent.shape[0]


def _argument(value: Tensor | int | float) -> ctypes.c_void_p | ctypes.c_int64 | ctypes.c_double:
    match value:
        case Tensor():
            return ctypes.c_void_p(value.data_ptr())
        case int():
            return ctypes.c_int64(value)
        case float():
            return ctypes.c_double(value)


SOURCES = [Path(__file__).with_name(name) for name in ("marks.cpp", "rows.cpp")]
FLAGS = (
    "-O3", "-march=native", "-mprefer-vector-width=512", "-fno-math-errno", "-fno-trapping-math",
    "-fopenmp", "-std=c++17", "-shared", "-fPIC", "-Wno-psabi",
)  # fmt: skip
PORTABLE_FLAGS = tuple(flag for flag in FLAGS if not flag.startswith("-m"))


def build() -> Path:
    """The compiled library, from the cache where it is there; the key holds source, flags and machine."""
    compiler = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")
    if compiler is None:
        raise KernelsMissing("no C++ compiler found")
    parts = [*(source.read_text() for source in SOURCES), *FLAGS, compiler, _machine()]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
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
            [compiler, *flags, *map(str, SOURCES), "-o", draft], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            os.replace(draft, library)
            return
    os.unlink(draft)
    raise KernelsMissing(f"{compiler} failed: {done.stderr.strip().splitlines()[-1]}")


def _machine() -> str:
    """What -march=native depends on: a cache may be shared between machines."""
    information = Path("/proc/cpuinfo")
    if not information.exists():
        return platform.processor()
    lines = information.read_text().splitlines()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
