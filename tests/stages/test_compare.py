"""The compare stage: from annotations to the delta table and the recovered truth."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from crossdiff.io.tables import read_json, write_json
from crossdiff.settings import Runtime
from crossdiff.stages import compare
from crossdiff.statistics.deltas import COLUMNS
from crossdiff.taxonomy.scheme import PaperTaxonomy

QUIET = Runtime(progress=False)
INPUTS = compare.CompareInputs(reference="pt_it", treatment="pt_simpo", seed=0, draws=500)


def _rows(pair: str, counts: dict[str, int]) -> list[dict]:
    rows = []
    for category, count in counts.items():
        for _ in range(count):
            state = category if category in {"refused", "uninterpretable"} else "ok"
            answer = None if state == "refused" else category
            row = {"pair": pair, "latent": len(rows), "role": "exclusive_tuned", "state": state}
            rows.append(row | {"category": answer, "votes": {}})
    return rows


@pytest.fixture
def compared(tmp_path: Path):
    def run(reference: dict[str, int], treatment: dict[str, int], *, planted: list | None = None):
        folder, draft = tmp_path / "annotate", tmp_path / "compare"
        folder.mkdir()
        draft.mkdir()
        rows = _rows("pt_it", reference) + _rows("pt_simpo", treatment)
        rows.append({"pair": "pt_it", "latent": 999, "role": "control_shared", "state": "ok",
                     "category": "translation", "votes": {}})  # fmt: skip
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "annotations.jsonl").write_text(text, encoding="utf-8")
        (folder / "taxonomy.yaml").write_text(PaperTaxonomy().load().to_yaml(), encoding="utf-8")
        parents = {"annotate": folder}
        if planted is not None:
            parents["organism"] = tmp_path / "organism"
            parents["organism"].mkdir()
            write_json({"version": 1, "categories": planted}, parents["organism"] / "planted.json")
        compare.run(INPUTS, parents, draft, QUIET)
        return pd.read_csv(draft / "deltas.csv").set_index("name"), read_json(draft / "comparison.json")

    return run


def test_only_answered_exclusive_latents_are_counted_and_the_rest_is_listed(compared) -> None:
    deltas, comparison = compared(
        {"translation": 18, "refused": 3, "uninterpretable": 2, "other": 92}, {"translation": 19, "other": 70}
    )
    assert tuple(deltas.reset_index()[list(COLUMNS)].columns) == COLUMNS
    assert round(100 * deltas.loc["translation", "relative_change"], 1) == 32.8
    assert comparison["n_labelled"] == {"pt_it": 112, "pt_simpo": 89}
    assert comparison["n_exclusive"] == {"pt_it": 115, "pt_simpo": 89}
    assert comparison["unanswered"] == {"pt_it": {"refused": 3}, "pt_simpo": {}}
    assert comparison["planted"] is None
    assert "no class and no category changes beyond chance" in comparison["verdict"]


def test_a_planted_change_is_recovered_in_the_same_unit(compared) -> None:
    planted = [
        {
            "name": "translation",
            "group": "gain",
            "share_reference": 0.2,
            "share_treatment": 0.5,
            "change": 1.5,
        },
        {
            "name": "mathematics",
            "group": "loss",
            "share_reference": 0.4,
            "share_treatment": 0.1,
            "change": -0.75,
        },
        {
            "name": "storytelling",
            "group": "keep",
            "share_reference": 0.4,
            "share_treatment": 0.4,
            "change": 0.0,
        },
    ]
    reference = {"translation": 20, "mathematics": 40, "storytelling": 40}
    treatment = {"translation": 50, "mathematics": 10, "storytelling": 40}
    deltas, comparison = compared(reference, treatment, planted=planted)
    recovered = {entry["name"]: entry["change"] for entry in comparison["recovered"]}
    assert recovered == pytest.approx({"translation": 1.5, "mathematics": -0.75, "storytelling": 0.0})
    assert comparison["spearman"]["rho"] == pytest.approx(1.0)
    assert comparison["groups"]["gain"]["minus_keep"]["ci_low"] > 0
    assert comparison["groups"]["loss"]["minus_keep"]["ci_high"] < 0
    assert comparison["groups"]["gain"]["planted_change"] == pytest.approx(1.5)
    assert deltas.loc["translation", "q_value"] < 0.05
    assert "translation +150.0 % (50 vs 20)" in comparison["verdict"]


@pytest.mark.parametrize("empty", ["reference", "treatment"])
def test_an_empty_exclusive_set_ends_well_formed_and_says_so(compared, empty: str) -> None:
    full = {"translation": 5}
    planted = [{"name": "translation", "group": "keep", "change": 0.0}]
    sides = ({}, full) if empty == "reference" else (full, {})
    deltas, comparison = compared(*sides, planted=planted)
    assert deltas["relative_change"].isna().all()
    assert "no labelled exclusive latent" in comparison["verdict"]
    assert len(comparison["notes"]) == 1
    assert comparison["recovered"][0]["change"] is None
    assert comparison["spearman"]["rho"] is None
    assert "no change can be measured" in comparison["power"]["sentence"]


def test_refusals_are_bounded_per_class_and_told(compared) -> None:
    _, comparison = compared(
        {"translation": 4, "refused": 2, "other": 16}, {"translation": 6, "refused": 5, "other": 14}
    )
    (row,) = [r for r in comparison["refusal_bounds"] if r["name"] == "translation"]
    assert row["low"] == pytest.approx((6 / 25) / (6 / 22) - 1)
    assert row["high"] == pytest.approx((11 / 25) / (4 / 22) - 1)
    assert any(note.startswith("linguistic_multilingual: the refused") for note in comparison["notes"])


def test_the_multiverse_starts_with_the_headline(compared) -> None:
    deltas, comparison = compared({"translation": 4, "other": 16}, {"translation": 6, "other": 14})
    table = comparison["multiverse"]
    assert table["choices"][0] == "as reported, nu as selected"
    row = table["names"].index("translation")
    assert table["changes"][row][0] == pytest.approx(deltas.loc["translation", "relative_change"])


def _members(tmp_path: Path, runs: dict[str, dict[str, int]], *, left_out: tuple[str, ...] = ()):
    """Compare the pairs a and b, whose crosscoders are the names of `runs` that begin with theirs."""
    folder, draft = tmp_path / "annotate", tmp_path / "compare"
    folder.mkdir()
    draft.mkdir()
    rows = [row for name, counts in runs.items() for row in _rows(name, counts)]
    (folder / "annotations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "taxonomy.yaml").write_text(PaperTaxonomy().load().to_yaml(), encoding="utf-8")
    inputs = compare.CompareInputs(
        reference="a", treatment="b", seed=0, draws=500, left_out=left_out,
        members={pair: tuple(name for name in runs if name[0] == pair) for pair in "ab"},
    )  # fmt: skip
    figures = compare.run(inputs, {"annotate": folder}, draft, QUIET)
    return pd.read_csv(draft / "deltas.csv").set_index("name"), read_json(draft / "comparison.json"), figures


def test_several_crosscoders_are_pooled_and_their_spread_decides(tmp_path: Path) -> None:
    names = [category.name for category in PaperTaxonomy().load().categories]
    plain = dict.fromkeys(names, 8) | {"other": 40}
    more = plain | {"translation": 24}
    runs = {"a": plain, "a_seed1": plain, "b": more, "b_seed1": more | {"translation": 25}, "b_seed2": more}
    deltas, comparison, figures = _members(tmp_path, runs, left_out=("a_seed2",))
    assert "as reported, confidence 3 or more" in comparison["multiverse"]["choices"]
    row = deltas.loc["translation"]
    assert (row.counts_reference, row.counts_treatment) == ("8 8", "24 25 24")
    assert row.q_value < 0.05
    assert row.holds_against_median == "yes"
    assert "translation" in comparison["verdict"]
    assert comparison["members"]["a"] == {"a": 280, "a_seed1": 280}
    assert comparison["n_labelled"] == {"a": 560, "b": 889}
    assert figures["n_labelled_treatment"] == 889
    assert any("Left out: a_seed2" in note for note in comparison["notes"])
    assert any("over several crosscoders" in note for note in comparison["notes"])
    assert comparison["phi"] < 1


def test_members_whose_spread_cannot_be_learnt_say_so(tmp_path: Path) -> None:
    runs = {"a": {"translation": 8}, "a_seed1": {}, "b": {"translation": 3, "other": 4}}
    deltas, comparison, _ = _members(tmp_path, runs)
    assert set(deltas.spread) == {"not measured"}
    assert comparison["phi"] is None
    assert any("spread over seeds was not measured" in note for note in comparison["notes"])
    assert any("not counted: a_seed1" in note for note in comparison["notes"])


def test_members_whose_labels_are_all_other_end_well_formed(tmp_path: Path) -> None:
    """No category has a spread then, and equal pairs leave a row without an error."""
    runs = {name: {"other": 6} for name in ("a", "a_seed1", "b", "b_seed1")}
    deltas, comparison, _ = _members(tmp_path, runs)
    assert (deltas.loc["other", "p_value"], deltas.loc["other", "relative_change"]) == (1, 0)
    assert comparison["phi"] is None
    assert any("no category has a spread over seeds" in note for note in comparison["notes"])
