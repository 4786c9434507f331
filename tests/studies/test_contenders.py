"""The contenders study: its plan, false calls by hand, and a sentence from the numbers."""

from pathlib import Path

import pandas as pd
import pytest

from crossdiff.io.tables import write_table
from crossdiff.pipeline.plan import plan
from crossdiff.studies.contenders import Contenders, false_calls
from crossdiff.studies.contenders.shown import FIGURES, TOY_TITLES
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


def test_nulls_own_nothing_and_the_first_steps_are_those_of_the_planted_study(tmp_path: Path) -> None:
    options = ("study.only=[delta]", "study.seeds=[0]")
    steps = [step for step in plan(experiment("experiment=contenders", *options)) if step.stage == "planted"]
    planted = [s.key for s in plan(experiment("experiment=planted", *options)) if s.stage == "planted"]
    assert len(steps) == 3
    assert [s.key for s in steps if s.key in planted] == planted
    counts = [step.inputs.planted.counts() for step in steps]  # type: ignore[attr-defined]
    assert sorted((c["tuned_only"], c["rotated"]) for c in counts) == [(0, 0), (0, 16), (32, 16)]

    recalls = [f"scaling_recall_{band}" for band in ("frequent", "rare", "scarce")]
    scores = dict.fromkeys((*FIGURES, *recalls, "norm_f1_scarce", "scaling_f1_scarce", "train_seconds"), 0.5)
    extras = {"seed_0": tmp_path / "true"}
    extras["seed_0"].mkdir()
    pd.DataFrame([{"contender": "delta", **scores}]).to_csv(extras["seed_0"] / "planted.csv", index=False)
    for world in ("same", "moved"):
        null(tmp_path / world / "delta", ["tuned", *[None] * 9])
        extras[f"{world}_seed_0"] = tmp_path / world
    found = Contenders(seeds=(0,), only=("delta",)).analyse({}, extras)
    assert found.numbers["kinds"]["delta"]["moved"]["value"] == pytest.approx(100)
    names = ["contenders", "f1_frequent", "f1_rare", "f1_scarce", "false_calls"]
    assert [chart.name for chart in found.charts] == names
    table = found.charts[0].table
    assert table is not None
    shown = [cell.text for cell in table.rows[0].cells]
    assert shown.count("not measured") == 3 + len(
        TOY_TITLES
    )  # both columns of what is held, and the size of the weights
