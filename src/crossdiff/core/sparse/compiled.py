"""The sparse step's operations in C++, built at first use."""

from __future__ import annotations


class CompilerMissing(RuntimeError):
    """No compiled operations on this machine, and why."""


class CompiledKernels:
    """Placeholder until the kernels land."""

    name = "compiled"

    @classmethod
    def load(cls) -> CompiledKernels:
        """Not yet."""
        raise CompilerMissing("not built yet")
