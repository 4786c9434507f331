"""Two pairs of difference dictionaries: latents that go up and those that go down have a delta table each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from crossdiff.io.tables import read_deltas, read_json, write_json, write_table
from crossdiff.report.delta_rows import delta_rows
from crossdiff.settings import Runtime
from crossdiff.stages import compare
from crossdiff.taxonomy.scheme import PaperTaxonomy

INPUTS = compare.CompareInputs(reference="pt_it", treatment="pt_simpo", seed=0, draws=500)
PLANTED = [
    {"name": "translation", "group": "gain", "change": 0.5},
    {"name": "mathematics", "group": "keep", "change": 0.0},
    {"name": "storytelling", "group": "loss", "change": -0.5},
]


def rows(pair: str, role: str, counts: dict[str, int]) -> list[dict[str, Any]]:
    labels = [name for name, count in counts.items() for _ in range(count)]
    return [
        {"pair": pair, "latent": n, "role": role, "state": "ok", "category": name, "votes": {}}
        for n, name in enumerate(labels)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Up: translation 4 of 20, then 6 of 20; down: 8 of 16, then 4 of 16."""
    found = [
        *rows("pt_it", "effect_up", {"translation": 4, "mathematics": 10, "storytelling": 6}),
        *rows("pt_simpo", "effect_up", {"translation": 6, "mathematics": 11, "storytelling": 3}),
        *rows("pt_it", "effect_down", {"translation": 8, "other": 8}),
        *rows("pt_simpo", "effect_down", {"translation": 4, "other": 12}),
    ]
    for name in ("annotate", "organism", "compare"):
        (tmp_path / name).mkdir()
    (tmp_path / "annotate" / "annotations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    (tmp_path / "annotate" / "taxonomy.yaml").write_text(PaperTaxonomy().load().to_yaml(), encoding="utf-8")
    write_json({"version": 1, "categories": PLANTED}, tmp_path / "organism" / "planted.json")
    return tmp_path


def test_each_sign_is_compared_for_itself(folder: Path) -> None:
    parents = {name: folder / name for name in ("annotate", "organism")}
    told = compare.run(INPUTS, parents, folder / "compare", Runtime(progress=False))
    up, down = (
        pd.read_csv(folder / "compare" / name).set_index("name") for name in ("deltas.csv", "deltas_down.csv")
    )
    assert up.loc["translation", "relative_change"] == pytest.approx(0.5)
    assert down.loc["translation", "relative_change"] == pytest.approx(-0.5)
    found = read_json(folder / "compare" / "comparison.json")
    assert found["n_labelled"] == {"pt_it": 20, "pt_simpo": 20}
    assert found["by_sign"]["down"]["n_labelled"] == {"pt_it": 16, "pt_simpo": 16}
    assert found["spearman"]["rho"] == told["spearman"] == pytest.approx(1)
    assert "n_exclusive" not in found


def test_without_a_latent_of_clear_sign_it_says_so(folder: Path) -> None:
    (folder / "annotate" / "annotations.jsonl").write_text("")
    parents = {name: folder / name for name in ("annotate", "organism")}
    for pair in ("pt_it", "pt_simpo"):
        parents[f"scale_{pair}"] = folder / pair
        (folder / pair).mkdir()
        table = pd.DataFrame({"latent": [0, 1], "sign": ["undecided", None]})
        write_table(table, folder / pair / "latents.parquet", version=1, kind="latents")
    compare.run(INPUTS, parents, folder / "compare", Runtime(progress=False))
    found = read_json(folder / "compare" / "comparison.json")
    assert found["notes"][0] == "No latent of either pair has a clear sign, so nothing is compared"
    assert found["n_labelled"] == {"pt_it": 0, "pt_simpo": 0}
    assert found["verdict"].startswith("no comparison is possible")
    assert delta_rows(read_deltas(folder / "compare" / "deltas_down.csv"))
