"""What ranks tell the process that started them: a result of any size, or nothing of one that was killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from crossdiff.training.ranks import in_every_rank

N_BYTES = 1_000_000
"""More than a pipe holds."""


class Deadly:
    """Kills the process that pickles it."""

    def __reduce__(self) -> tuple:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def large_and_deadly(rank: int) -> list:
    return [rank, bytes(N_BYTES), Deadly()]


@pytest.mark.slow
def test_a_rank_that_dies_while_it_tells_a_large_result_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ValueError, match="process 0 of 1 was killed"):
        in_every_rank(large_and_deadly, (), n_ranks=1)
    assert not list(tmp_path.iterdir())
