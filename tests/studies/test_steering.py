"""The steering study: its plan, what it refuses, and its answer for rising, flat and missing latents."""

from pathlib import Path

import pandas as pd
import pytest

from crossdiff.io.tables import write_json
from crossdiff.studies.steering import Steering
from crossdiff.studies.steering.steered_pair import _removal
from tests.composed import experiment

STUDY = Steering(prompts="planted", n_latents=1, n_random=1, n_prompts=20, n_new_tokens=4)
RISING, FLAT = (4, 10, 17), (5, 4, 5)


def write_steered(folder: Path, categories: list[str], latents: tuple[int, ...]) -> Path:
    """One latent per category whose counts at 0, 1/2 and 1 are `latents`; random directions are flat."""
    folder.mkdir()
    rows = []
    for number, _ in enumerate(categories):
        for place in ("own", "neutral"):
            for direction, counts in (("latent", latents), ("random_0", FLAT)):
                cells = dict(zip((0.0, 0.5, 1.0), counts, strict=True)) | {float("nan"): 0}
                if direction != "latent":
                    del cells[0.0]
                shared = {"latent": number, "direction": direction, "place": place, "n": 20, "n_empty": 0}
                rows += [{**shared, "dose": dose, "shown": shown} for dose, shown in cells.items()]
    columns = ["latent", "direction", "dose", "place", "shown", "n", "n_empty"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "steering.csv", index=False)
    chosen = [
        {"latent": n, "category": name, "target": f"{name} 1", "share": 1.0, "peak_code": 2.0, "norm": 9.0}
        for n, name in enumerate(categories)
    ]
    counts = {"n_exclusive": 30, "n_in_category": 20, "n_matched": len(categories)}
    write_json({"version": 1, "pair": folder.name, **counts, "latents": chosen}, folder / "steering.json")
    return folder


@pytest.fixture
def runs(make_run):
    labels = {"mathematics": 9, "storytelling": 5}
    planted = [{"name": name, "group": "gain"} for name in ("mathematics", "storytelling", "role_play")]
    return {"run": make_run("run", labels, labels, comparison={"planted": planted})}


NAMES = ["mathematics", "storytelling", "role_play", "translation", "self_reference"]


def test_rising_latents_are_told_with_their_groups_and_random_directions(runs, tmp_path: Path) -> None:
    found = STUDY.analyse(runs, {"pt_it": write_steered(tmp_path / "pt_it", NAMES, RISING)})
    assert (
        "rises with the dose for 3 of 3 latents of gain categories and 5 of 5 latents in all" in found.answer
    )
    assert "0 of 5 random directions of the same length (0 fall): adding the latents moves" in found.answer
    assert "0% (0% to 4%) with the latents' directions taken out" in found.answer
    numbers = found.numbers["pt_it"]["places"]["own"]
    assert numbers["gain"]["share_not_rising"] == 0
    assert numbers["all"]["rates_latents"]["1"]["rate"] == 0.85
    assert numbers["all"]["p_value"] == pytest.approx(2 / 252)  # one of C(10, 5) splits, and its mirror
    assert [chart.name for chart in found.charts] == ["pt_it-own", "pt_it-neutral", "pt_it-latents"]
    assert [chart.figure is not None for chart in found.charts] == [True, True, False]


def test_flat_latents_are_a_null_told_plainly(runs, tmp_path: Path) -> None:
    found = STUDY.analyse(runs, {"pt_it": write_steered(tmp_path / "pt_it", NAMES, FLAT)})
    assert "for 0 of 3 latents of gain categories and 0 of 5 latents in all" in found.answer
    assert "moves the behaviour no more than random directions do (no rise)" in found.answer
    assert any("100% of latents do not rise" in note for note in found.notes)


def test_a_pair_without_such_latents_says_so(runs, tmp_path: Path) -> None:
    found = STUDY.analyse(runs, {"pt_it": write_steered(tmp_path / "pt_it", [], FLAT)})
    assert found.answer == (
        "pt_it: none of 30 exclusive latents belongs to a behaviour that can be asked for, "
        "so nothing was steered."
    )
    assert found.charts == ()


def test_every_pair_is_steered_after_its_annotation() -> None:
    from crossdiff.pipeline.plan import plan

    steps = {step.name: step for step in plan(experiment("experiment=steering", "size=ci"))}
    step = steps["steer toy_pt_simpo"]
    assert step.parents["train"] is steps["train toy_pt_simpo"]
    assert step.inputs.model.name == "simpo"  # type: ignore[attr-defined]
    assert set(step.parents) == {"train", "documents", "annotate", "organism"}


@pytest.mark.parametrize(
    ("doses", "message"), [((0.5, 0), "leave it out"), ((1, 1), "must differ"), ((2.0, -1), "no trend")]
)
def test_doses_that_test_nothing_are_refused(doses: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Steering(**{**STUDY.model_dump(), "doses": doses})


def test_rates_of_no_answer_are_unknown() -> None:
    nothing = dict.fromkeys(("rate", "low", "high"), float("nan"))
    rates = {f"rates_{kind}": {"0": nothing, "removed": nothing} for kind in ("latents", "random")}
    sentence = _removal(rates)
    assert sentence.startswith("Shown in unknown (unknown) of answers before")
