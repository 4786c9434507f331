from __future__ import annotations

import json
import subprocess
import sys

import pytest

from crossdiff.report.export import browser_path
from experiments.bench.report import ReportBench
from experiments.bench.report_work import invented


def test_the_limits_are_those_of_the_size() -> None:
    assert ReportBench().limits() == {
        "file_mb": 10.0, "usable_ms": 1500.0, "open_ms": 50.0, "search_ms": 100.0
    }  # fmt: skip
    assert ReportBench(n_listed=1000).limits()["file_mb"] == 25.0
    assert set(ReportBench(n_listed=4000).limits()) == {"open_ms", "search_ms"}


def test_the_pairs_add_up_to_what_is_listed() -> None:
    assert [size.n_exclusive for size in ReportBench(n_listed=205).pairs().values()] == [100, 99]
    sources = invented(ReportBench(n_listed=11, n_latents=200, n_examples=1, n_tokens=4).pairs())
    assert [len(pair.selected()) for pair in sources.pairs.values()] == [6, 5]
    assert sources.comparison is not None
    assert len(sources.comparison.rows()) >= 37


@pytest.mark.browser
def test_every_figure_stands_beside_its_limit() -> None:
    pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
    if browser_path() is None:
        pytest.skip("no Chromium: apt-get install chromium, or set CROSSDIFF_CHROMIUM")
    sizes = ["n_listed=12", "n_latents=300", "n_examples=2", "n_tokens=16", "rounds=1"]
    command = [sys.executable, "-m", "crossdiff.bench", "report", *sizes]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert set(found["figures"]) == {"file_mb", "usable_ms", "all_drawn_ms", "open_ms", "search_ms"}
    assert found["figures"]["file_mb"]["figure"] < 2
