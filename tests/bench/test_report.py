from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from crossdiff.report.concepts import concepts
from crossdiff.report.export import browser_path
from experiments.bench.report import ReportBench


def test_the_limits_are_those_of_the_size() -> None:
    assert ReportBench().limits() == {
        "file_mb": 10.0, "usable_ms": 1500.0, "open_ms": 50.0, "search_ms": 100.0
    }  # fmt: skip
    assert ReportBench(n_listed=1640).limits()["file_mb"] == 25.0
    assert set(ReportBench(n_listed=4000).limits()) == {"open_ms", "search_ms"}


def test_the_pairs_add_up_to_what_is_listed(tmp_path: Path) -> None:
    assert [sizes[0].n_exclusive for sizes in ReportBench(n_listed=205).pairs().values()] == [100, 99]
    sources = ReportBench(n_listed=11, n_latents=200, n_examples=1, n_tokens=4).sources(tmp_path)
    assert [len(pair.selected()) for pair in sources.pairs.values()] == [6, 5]
    assert sources.comparison is not None
    assert len(sources.comparison.rows()) >= 37


def test_the_latents_of_several_crosscoders_recur(tmp_path: Path) -> None:
    bench = ReportBench(n_listed=60, n_members=3, n_latents=100, n_examples=1, n_tokens=4)
    sources = bench.sources(tmp_path)
    assert sum(len(one.selected()) for name in sources.pairs for one in sources.crosscoders(name)) == 60
    known = concepts(sources.crosscoders("pt_it"))
    assert len(known) == 30
    assert all(concept["found"] == "3 of 3" for concept in known.values())
    with pytest.raises(ValueError, match="n_listed=20 is less than 24"):
        ReportBench(n_listed=20, n_members=3)


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
