"""The environment of this process: versions, commit, memory, device, folders."""

from __future__ import annotations

import ctypes
import errno
import gc
import math
import os
import platform
import resource
import subprocess
import sys
import traceback
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
CHANGED = "+changes"
"""Ends the commit of a checkout that differs from it."""
_PACKAGES = ("crossdiff", "torch", "transformers", "pytorch-lightning", "hydra-core", "pandas", "anthropic")


@cache
def software() -> dict[str, str]:
    """Versions of Python and of the packages that can change a figure."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def command() -> str:
    """The command of this process: `crossdiff` where installed, else `python run.py`."""
    return "crossdiff" if Path(sys.argv[0]).stem == "crossdiff" else "python run.py"


def conf_dir() -> Path:
    """The configuration folder: of the checkout, or the copy inside an installed package."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parents[1] / "conf", package / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise FileNotFoundError(f"no conf/config.yaml beside or inside {package}; install crossdiff again")


@cache
def git_commit() -> str | None:
    """Commit of this package's checkout, with `+changes` when dirty; None outside a checkout."""
    here = Path(__file__).resolve().parent
    try:
        head = subprocess.run(
            [
                "git",
                "-C",
                str(here),
                "describe",
                "--always",
                "--abbrev=40",
                f"--dirty={CHANGED}",
                "--exclude=*",
            ],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip()


def peak_memory_mb() -> float:
    """Peak resident set of this process so far, in MB (10^6 bytes).

    Linux includes the parent's peak in `ru_maxrss`; VmHWM is of this process alone.
    """
    peak = _status_kib("VmHWM")
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss if peak is None else peak
    return kib * 1024 / 1e6


def allow_open_files() -> None:
    """Raise this process's soft limit of open files to the hard one (`ulimit -Sn`, `ulimit -Hn`).

    Not before submitting SLURM jobs, because sbatch passes the limit on to the nodes.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def memory_at_rest_mb() -> float:
    """Resident set of this process in MB, after glibc has released free memory; NaN without Linux."""
    gc.collect()
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
    kib = _status_kib("VmRSS")
    return math.nan if kib is None else kib * 1024 / 1e6


def _status_kib(name: str) -> int | None:
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)


def choose_device(device: str) -> str:
    """The device; `auto` is CUDA where available. ValueError for a missing or unknown device."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind = device.split(":", maxsplit=1)[0]
    if kind == "cpu":
        return device
    if kind != "cuda":
        raise ValueError(f"device={device} is unknown; choose auto, cpu, cuda or cuda:<number>")
    if not torch.cuda.is_available():
        raise ValueError(
            f"device={device}, but torch sees no CUDA device here; use device=cpu or a machine with a GPU"
        )
    if ":" in device and int(device.split(":")[1]) >= torch.cuda.device_count():
        raise ValueError(
            f"device={device}, but there are {torch.cuda.device_count()} CUDA devices, counted from 0"
        )
    return device


def raised_by_us(error: BaseException) -> bool:
    """Whether a line of this package raised the exception, so that its text is for users."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(PACKAGE)


def is_full_disk(error: BaseException) -> bool:
    """Whether a disk or quota is full; safetensors, SQLite and others say so in their text alone."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return any(text in str(error) for text in (os.strerror(errno.ENOSPC), "database or disk is full"))
