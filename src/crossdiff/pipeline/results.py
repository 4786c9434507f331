"""The finished products of a run, copied from the report artifact into the user's results folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crossdiff.io.artifacts import MANIFEST
from crossdiff.io.tables import read_json, write_json

SUMMARY = "summary.json"


def publish_results(report: Path, results: Path, steps: Sequence[dict[str, Any]]) -> Path:
    """Copy the report artifact's files to `results`, add the `steps` list to its summary; return the page.

    `steps` holds `{name, key, state, seconds}` of this run (design.md section 4).
    """
    results.mkdir(parents=True, exist_ok=True)
    for path in sorted(report.iterdir()):
        if path.is_file() and path.name not in (MANIFEST, SUMMARY):
            aside = results / f".{path.name}.part"
            shutil.copyfile(path, aside)
            os.replace(aside, results / path.name)
    summary = read_json(report / SUMMARY)
    write_json({**summary, "steps": list(steps)}, results / SUMMARY)
    return results / "report.html"
