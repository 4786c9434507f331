"""Runs of a study with chosen labels."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crossdiff.report.runs import RunProducts
from tests.study_products import write_run


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., RunProducts]:
    def make(name: str, reference: dict[str, int], treatment: dict[str, int], **more: Any) -> RunProducts:
        labels = {"pt_it": Counter(reference), "pt_simpo": Counter(treatment)}
        return write_run(tmp_path / name, labels, **more)

    return make
