"""What a process says of itself."""

from __future__ import annotations

import subprocess
import sys

import torch

from crossdiff.io.environment import memory_at_rest_mb, peak_memory_mb

PRINT = "from crossdiff.io.environment import peak_memory_mb; print(peak_memory_mb())"
GROW = f"block = bytearray(200_000_000); {PRINT}"


def test_the_peak_grows_with_what_was_held_and_is_not_the_parents() -> None:
    block = bytearray(b"x") * 400_000_000
    assert peak_memory_mb() > 400
    del block
    small, large = (
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout)
        for code in (PRINT, GROW)
    )
    assert small < 150
    assert 190 < large - small < 220


def test_what_was_freed_is_not_held_at_rest() -> None:
    before = memory_at_rest_mb()
    blocks = [torch.ones(20_000_000 // 4) for _ in range(10)]
    held = memory_at_rest_mb()
    del blocks
    assert 180 < held - before < 220
    assert memory_at_rest_mb() < before + 20


def test_the_limit_of_open_files_is_raised_to_what_is_granted() -> None:
    code = (
        "import resource; limit = resource.RLIMIT_NOFILE; resource.setrlimit(limit, (64, 128));"
        "from crossdiff.io.environment import allow_open_files; allow_open_files();"
        "print(resource.getrlimit(limit))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "(128, 128)\n"
