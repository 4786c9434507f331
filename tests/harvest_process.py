"""A harvest in a process of its own, slow enough to be killed in the middle."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from crossdiff.data import harvest_run
from crossdiff.settings import Runtime
from crossdiff.stages import harvest


def slow_harvest(inputs: harvest.HarvestInputs, token_folder: Path, draft: Path) -> None:
    """Harvest with a pause before and after every file that is written."""
    plain = harvest_run.write_layer

    def slowly(*args: Any) -> str:
        time.sleep(0.1)
        digest = plain(*args)
        time.sleep(0.1)
        return digest

    harvest_run.write_layer = slowly
    harvest.run(inputs, {"tokens": token_folder}, draft, Runtime(progress=False))
