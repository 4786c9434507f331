"""Report artifacts with chosen contents, as the runs of a study leave them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from crossdiff.io.artifacts import write_manifest
from crossdiff.io.tables import write_json, write_table
from crossdiff.report.runs import RunProducts
from crossdiff.statistics.deltas import category_deltas
from crossdiff.taxonomy.scheme import PaperTaxonomy

FIGURES = {
    "fve_base": 0.97, "fve_tuned": 0.95, "l0": 24.0, "dead_share": 0.0, "n_exclusive_base": 3,
    "n_undecided": 9,
}  # fmt: skip


def latent_table(*, n: int = 200, delta_norm: np.ndarray | None = None, seed: int = 0) -> pd.DataFrame:
    """Alive latents whose norms lie in the middle unless given; nu_error in two groups when far out."""
    draw = np.random.default_rng(seed)
    norms = np.clip(draw.normal(0.5, 0.04, n), 0, 1) if delta_norm is None else delta_norm
    far = np.where(np.arange(n) % 2 == 0, 0.05, 0.95)
    return pd.DataFrame(
        {
            "latent": np.arange(n), "kind": "shared", "call": "not_exclusive", "exclusive_to": None,
            "delta_norm": norms, "density": 0.1, "nu_error": far + draw.normal(0, 0.02, n),
            "nu_reconstruction": draw.normal(0.5, 0.1, n),
        }
    )  # fmt: skip


def write_run(
    folder: Path,
    labels: dict[str, Counter[str]],
    *,
    latents: pd.DataFrame | None = None,
    n_exclusive: dict[str, int] | None = None,
    comparison: dict[str, Any] | None = None,
) -> RunProducts:
    """A run whose pairs have these labelled exclusive latents; two pairs make a comparison."""
    folder.mkdir(parents=True)
    taxonomy = PaperTaxonomy().load()
    pairs = {}
    for pair, counts in labels.items():
        rows = [
            {"pair": pair, "latent": number, "role": "exclusive_tuned", "state": "ok", "category": name}
            for number, name in enumerate(counts.elements())
        ]
        lines = pd.DataFrame(rows).to_json(orient="records", lines=True) if rows else ""
        (folder / f"annotations.{pair}.jsonl").write_text(lines or "")
        table = latent_table() if latents is None else latents
        write_table(table, folder / f"latents.{pair}.parquet", version=1, kind="latents")
        pairs[pair] = FIGURES | {"n_exclusive": (n_exclusive or {}).get(pair, counts.total())}
    (folder / "taxonomy.yaml").write_text(taxonomy.to_yaml())
    facts = None
    if len(labels) == 2:
        reference, treatment = (list(counts.elements()) for counts in labels.values())
        deltas = category_deltas(reference, treatment, taxonomy=taxonomy, draws=200)
        deltas.to_csv(folder / "deltas.csv", index=False)
        names = list(labels)
        facts = {"reference": names[0], "treatment": names[1], "planted": None, **(comparison or {})}
    write_json({"version": 1, "pairs": pairs, "comparison": facts}, folder / "summary.json")
    write_manifest(folder, {"stage": "report", "label": folder.name, "key": folder.name, "seconds": 1.0})
    return RunProducts(folder.name, folder)
