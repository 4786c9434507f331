"""Two pairs of difference dictionaries: latents that go up and those that go down have a delta table each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from crossdiff.io.tables import read_deltas, read_json, read_jsonl, write_json, write_jsonl
from crossdiff.report.delta_rows import delta_rows
from crossdiff.settings import Runtime
from crossdiff.stages import compare
from crossdiff.taxonomy.scheme import PaperTaxonomy

INPUTS = compare.CompareInputs(reference="pt_it", treatment="pt_simpo", seed=0, draws=500, by_sign=True)
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


def keep_roles(folder: Path, *roles: str) -> None:
    path = folder / "annotate" / "annotations.jsonl"
    write_jsonl([row for row in read_jsonl(path) if row["role"] in roles], path)


def compared(folder: Path, inputs: compare.CompareInputs) -> dict[str, Any]:
    parents = {name: folder / name for name in ("annotate", "organism")}
    compare.run(inputs, parents, folder / "compare", Runtime(progress=False))
    return read_json(folder / "compare" / "comparison.json")


def test_several_crosscoders_per_pair_are_counted_together_and_their_spread_is_told(folder: Path) -> None:
    """The second crosscoder of a pair has the latents of the first that go up, and none that goes down."""
    path = folder / "annotate" / "annotations.jsonl"
    once = read_jsonl(path)
    again = [row | {"pair": f"{row['pair']}_seed1"} for row in once if row["role"] == "effect_up"]
    write_jsonl([*once, *again], path)
    members = {pair: (pair, f"{pair}_seed1") for pair in ("pt_it", "pt_simpo")}
    found = compared(folder, INPUTS.model_copy(update={"members": members}))
    up, down = found["by_sign"]["up"], found["by_sign"]["down"]
    assert up["members"] == {
        "pt_it": {"pt_it": 20, "pt_it_seed1": 20},
        "pt_simpo": {"pt_simpo": 20, "pt_simpo_seed1": 20},
    }
    assert down["members"]["pt_it"] == {"pt_it": 16, "pt_it_seed1": 0}
    table = read_deltas(folder / "compare" / "deltas.csv").set_index("name")
    assert table.loc["translation", ["count_reference", "count_treatment"]].tolist() == [8, 12]
    assert (up["spread"], up["phi"]) == (
        "measured",
        1.0,
    )  # equal counts vary less than chance: 1 is the least
    notes = found["notes"]
    assert notes[0].startswith(
        "Counts are over several crosscoders that differ in their seed alone: 2 of pt_it"
    )
    assert any(note.startswith("Latents that go up: counts vary 1.00 times as much") for note in notes)
    missing = "Latents that go down: without a labelled latent that goes down, so not counted: pt_it_seed1"
    assert any(note.startswith(missing) for note in notes)


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
    assert found["verdict"] == told["verdict"]
    assert told["verdict"].startswith("latents that go up: no class and no category changes beyond chance")
    assert "; latents that go down: no class" in told["verdict"]


def test_a_sign_without_latents_is_named_and_no_exclusive_latent_is(folder: Path) -> None:
    keep_roles(folder, "effect_up")
    found = compared(folder, INPUTS)
    assert found["verdict"].startswith("latents that go up: no class")
    missing = "latents that go down: no comparison is possible: the reference and the treatment pair has no"
    assert f"{missing} labelled latent that goes down" in found["verdict"]
    assert "exclusive" not in found["verdict"]
    assert found["notes"][0].startswith("pt_it has no labelled latent that goes down")


def test_more_crosscoders_are_not_advised_where_a_sign_has_no_latents(folder: Path) -> None:
    keep_roles(folder, "effect_up")
    members = {pair: (pair, f"{pair}_seed1") for pair in ("pt_it", "pt_simpo")}
    notes = compared(folder, INPUTS.model_copy(update={"members": members}))["notes"]
    (told,) = (note for note in notes if note.startswith("Latents that go down: the spread"))
    assert told.endswith("was not measured, because a pair has no labelled latent that goes down")


def test_without_a_latent_of_clear_sign_it_says_so(folder: Path) -> None:
    keep_roles(folder)
    found = compared(folder, INPUTS)
    assert found["n_labelled"] == {"pt_it": 0, "pt_simpo": 0}
    expected = "no comparison is possible: neither pair has a labelled latent with a clear sign"
    assert found["verdict"].startswith(expected)
    assert delta_rows(read_deltas(folder / "compare" / "deltas_down.csv"))
