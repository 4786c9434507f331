"""Signatures of SHAPES_CHECKED are checked at run time in every test; no test reaches a network account."""

import importlib
import os
import sys
import typing

os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
for name in [name for name in os.environ if name.startswith("ANTHROPIC_")]:
    del os.environ[name]

from collections.abc import Iterator  # noqa: E402
from typing import Any  # noqa: E402

import pandas  # noqa: E402, F401
import pytest  # noqa: E402
import torch  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is first imported

SHAPES_CHECKED = (
    "crossdiff.core",
    "crossdiff.studies.causal.patching",
)
LIGHT = [f"crossdiff.core.{name}" for name in ("dictionary", "exclusive_call", "sparsity")]
"""Modules of settings: they import torch `if TYPE_CHECKING` only, so that `run.py --help` stays quick."""


def check_shapes() -> None:
    """Check shapes at run time; `LIGHT` is imported as a type checker reads it, with its tensor types."""
    for name in LIGHT:  # as it is: libraries must have imported their own parts before the switch
        importlib.import_module(name)
        del sys.modules[name]
    install_import_hook(SHAPES_CHECKED, "beartype.beartype")
    importlib.import_module("crossdiff.core.threshold")
    typing.TYPE_CHECKING = True
    try:
        for name in LIGHT:
            importlib.import_module(name)
    finally:
        typing.TYPE_CHECKING = False


check_shapes()

SET_UP_BY_CI = ("slurm", "browser")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium; skips where there is none.

    One per module: playwright keeps an event loop while it is open, in which no test can start its own.
    """
    from crossdiff.report.export import EXECUTABLES, browser_path
    from experiments.bench.report import chromium

    pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
    if browser_path() is None:
        pytest.skip(f"none of {', '.join(EXECUTABLES)}: apt-get install chromium, or set CROSSDIFF_CHROMIUM")
    with chromium() as launched:
        yield launched


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    """With CROSSDIFF_NO_SKIPS, a skipped test fails where `.ci/run` has set up what it needs."""
    report = yield
    wanted = any(item.get_closest_marker(marker) for marker in SET_UP_BY_CI)
    if os.environ.get("CROSSDIFF_NO_SKIPS") and report.skipped and wanted:
        report.outcome = "failed"
        report.longrepr = f"skipped although .ci/run set this up: {report.longrepr}"
    return report
