"""What a process says of itself."""

from __future__ import annotations

import subprocess
import sys

from crossdiff.io.environment import peak_memory_mb

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
