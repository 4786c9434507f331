"""Results folders as finished runs leave them, with chosen settings, figures and deltas."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

CHANGES = {"safety": (0.5, 0.2, 0.9), "code": (-0.3, -0.6, 0.1)}
"""Category -> relative change and its interval."""


def write_run(
    folder: Path, *, settings: dict[str, Any], n_exclusive: int = 40, changes: Any = CHANGES
) -> Path:
    """One results folder of a comparison of pt_it and pt_simpo."""
    folder.mkdir(parents=True)
    merits = {"fve_base": 0.9, "fve_tuned": 0.8, "l0": 24.5, "dead_share": 0.01, "n_exclusive_base": None}
    pairs = {
        pair: merits | {"n_exclusive": n_exclusive + extra, "n_labelled": n_exclusive}
        for pair, extra in (("pt_it", 0), ("pt_simpo", 20))
    }
    summary = {
        "version": 1, "settings": settings, "pairs": pairs, "steps": [],
        "comparison": {"reference": "pt_it", "treatment": "pt_simpo"},
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "report.html").write_text("<html></html>")
    delta_table(changes).to_csv(folder / "deltas.csv", index=False)
    return folder


def delta_table(changes: dict[str, Sequence[float]]) -> pd.DataFrame:
    """A delta table of ten latents out of a hundred per category in the reference."""
    rows = [
        {
            "level": "category", "name": name, "parent": None, "count_reference": 10, "total_reference": 100,
            "count_treatment": round(10 * (1 + change)), "total_treatment": 100, "share_reference": 0.1,
            "share_treatment": 0.1 * (1 + change), "relative_change": change, "ci_low": low, "ci_high": high,
            "p_value": 0.3, "q_value": 0.6,
        }
        for name, (change, low, high) in changes.items()
    ]  # fmt: skip
    return pd.DataFrame(rows)
