"""Building the C++ kernels at first use, into a cache."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from crossdiff.core.sparse.kernels import KernelsMissing

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
