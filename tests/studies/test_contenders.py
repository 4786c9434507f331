"""The contenders study: its plan, false calls by hand, and a sentence from the numbers."""

from pathlib import Path

import pandas as pd
import pytest

from crossdiff.io.tables import write_table
from crossdiff.pipeline.plan import plan
from crossdiff.studies.contenders import FIGURES, Contenders, answer, false_calls
from tests.composed import experiment


def null(folder: Path, calls: list[str | None], *, n_dead: int = 0) -> Path:
    folder.mkdir(parents=True)
    kinds = ["other"] * (len(calls) - n_dead) + ["dead"] * n_dead
    table = pd.DataFrame({"latent": range(len(calls)), "kind": kinds, "exclusive_to": calls})
    table["n_active"] = [0 if kind == "dead" else 9 for kind in kinds]
    write_table(table, folder / "latents.parquet", version=1, kind="latents")
    return folder


def test_both_sides_count_and_the_dead_do_not(tmp_path: Path) -> None:
    """3 of 8 + 12 alive latents: 150 of 1,000."""
    folders = [
        null(tmp_path / "a", ["tuned", "base", *[None] * 8], n_dead=2),
        null(tmp_path / "b", ["tuned", *[None] * 11]),
    ]
    found = false_calls(folders)
    assert found is not None
    assert (found["n_calls"], found["n_alive"], found["value"]) == (3, 20, pytest.approx(150))
    assert (found["low"], found["high"]) == (pytest.approx(52.4, abs=0.1), pytest.approx(360.4, abs=0.1))
    assert false_calls([]) is None


def test_the_sentence_names_who_leads_who_is_behind_and_who_makes_false_calls() -> None:
    def row(f1: float, n: int) -> dict:
        calls = {
            null: {"n_calls": found, "value": 10.0 * found} for null, found in (("same", 0), ("moved", n))
        }
        return {**dict.fromkeys(FIGURES, f1), **calls}

    differs = {**dict.fromkeys(FIGURES, float("nan")), "same": None, "moved": None}
    differs |= {"held_tuned_frequent": 0.75, "sign_right": 1.0}
    said = answer({"l1": row(0.8, 3), "dedicated": row(0.2, 5), "delta": row(1.0, 0), "diff_sae": differs})
    assert (
        "1 % of tokens and more: highest F1 1.000 (delta); lower: l1 0.800, dedicated, tied form 0.200."
        in said
    )
    assert "where the models are same: none." in said
    assert "where the models are moved: dedicated, tied form 50, l1 30." in said
    assert said.endswith(
        "diff_sae makes no call: it holds 75% of the tuned-only directions of 1 % of tokens and more, and "
        "the sign of 100% of what it holds of one model alone is right."
    )


def test_nulls_own_nothing_and_the_first_steps_are_those_of_the_planted_study(tmp_path: Path) -> None:
    options = ("study.only=[delta]", "study.seeds=[0]")
    steps = [step for step in plan(experiment("experiment=contenders", *options)) if step.stage == "planted"]
    planted = [s.key for s in plan(experiment("experiment=planted", *options)) if s.stage == "planted"]
    assert len(steps) == 3
    assert [s.key for s in steps if s.key in planted] == planted
    counts = [step.inputs.planted.counts() for step in steps]  # type: ignore[attr-defined]
    assert sorted((c["tuned_only"], c["rotated"]) for c in counts) == [(0, 0), (0, 16), (32, 16)]

    scores = dict.fromkeys((*FIGURES, "train_seconds"), 0.5)
    extras = {"seed_0": tmp_path / "true"}
    extras["seed_0"].mkdir()
    pd.DataFrame([{"contender": "delta", **scores}]).to_csv(extras["seed_0"] / "planted.csv", index=False)
    for world in ("same", "moved"):
        null(tmp_path / world / "delta", ["tuned", *[None] * 9])
        extras[f"{world}_seed_0"] = tmp_path / world
    found = Contenders(seeds=(0,), only=("delta",)).analyse({}, extras)
    assert found.numbers["kinds"]["delta"]["moved"]["value"] == pytest.approx(100)
    table = found.charts[0].table
    assert table is not None
    shown = [cell.text for cell in table.rows[0].cells]
    assert shown.count("not measured") == 3  # both columns of what is held, and the size of the weights
