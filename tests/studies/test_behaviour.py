"""Behaviour: correlations by hand, intervals, and null results told plainly."""

import json

import numpy as np
import pytest

from crossdiff.studies.behaviour import Behaviour, _told, correlation

STUDY = Behaviour(seeds=(0,), prompts="planted", n_prompts=8, n_new_tokens=4)
NAMES = ["mathematics", "storytelling", "role_play", "self_reference", "translation", "data_analysis"]


def write_rates(folder, shown: list[int]):
    folder.mkdir()
    rows = [
        {"name": name, "category": name, "shown": s, "n": 50} for name, s in zip(NAMES, shown, strict=True)
    ]
    (folder / "rates.json").write_text(json.dumps({"version": 1, "sets": rows}))
    return folder


def extras(tmp_path, reference: list[int], treatment: list[int]):
    return {
        "seed_0_reference": write_rates(tmp_path / "reference", reference),
        "seed_0_treatment": write_rates(tmp_path / "treatment", treatment),
    }


def run(make_run):
    up = dict(zip(NAMES, [20, 16, 12, 6, 3, 2], strict=True))
    down = dict(zip(NAMES, [2, 3, 6, 12, 16, 20], strict=True))
    return {"seed_0": make_run("seed_0", down, up)}


def test_behaviour_that_follows_the_latents_is_found(make_run, tmp_path) -> None:
    found = STUDY.analyse(run(make_run), extras(tmp_path, [2, 5, 9, 20, 30, 40], [40, 30, 20, 9, 5, 2]))
    assert found.answer.startswith("Latent changes go with the change of measured rates (rho +1.00")


def test_unrelated_behaviour_is_a_null_result(make_run, tmp_path) -> None:
    found = STUDY.analyse(run(make_run), extras(tmp_path, [9, 9, 9, 9, 9, 9], [10, 8, 10, 8, 11, 9]))
    assert "show no relation to the change of measured rates" in found.answer


def test_silence_says_nothing(make_run, tmp_path) -> None:
    found = STUDY.analyse(run(make_run), extras(tmp_path, [0] * 6, [0] * 6))
    assert "Neither model showed any behaviour" in found.answer
    assert np.isnan(found.numbers["correlations"]["measured rates"]["rho"])


def test_the_planted_change_is_correlated_too(make_run, tmp_path) -> None:
    planted = [{"name": n, "group": "gain", "change": 3.0 - i} for i, n in enumerate(NAMES[:4])]
    up, down = (
        dict(zip(NAMES, counts, strict=True)) for counts in ([20, 16, 12, 6, 3, 2], [2, 3, 6, 12, 16, 20])
    )
    runs = {"seed_0": make_run("seed_0", down, up, comparison={"planted": planted})}
    found = STUDY.analyse(runs, extras(tmp_path, [0] * 6, [0] * 6))
    assert found.numbers["correlations"]["number of behaviours"]["n"] == 4
    assert found.numbers["correlations"]["number of behaviours"]["rho"] == pytest.approx(1.0)


def test_missing_points_are_left_out() -> None:
    points = [{"category": str(x), "latents": x, "rate": x} for x in (0.1, 0.5, float("nan"), 0.9)]
    assert correlation(points, "rate")["n"] == 3


def test_a_set_that_nobody_judged_has_no_rate(make_run, tmp_path) -> None:
    folders = extras(tmp_path, [2, 5, 9, 20, 30, 40], [40, 30, 20, 9, 5, 2])
    rows = json.loads((folders["seed_0_treatment"] / "rates.json").read_text())
    rows["sets"][0] |= {"shown": 0, "n": 0}
    (folders["seed_0_treatment"] / "rates.json").write_text(json.dumps(rows))
    found = STUDY.analyse(run(make_run), folders)
    assert found.numbers["correlations"]["measured rates"]["n"] == 5
    assert np.isnan(found.numbers["rates"][0]["rate_treatment"])


def test_without_any_judgement_it_says_so(make_run, tmp_path) -> None:
    folders = extras(tmp_path, [0] * 6, [0] * 6)
    for folder in folders.values():
        rows = json.loads((folder / "rates.json").read_text())
        rows["sets"] = [row | {"n": 0} for row in rows["sets"]]
        (folder / "rates.json").write_text(json.dumps(rows))
    assert "No answer was judged" in STUDY.analyse(run(make_run), folders).answer


def test_a_correlation_without_an_interval_is_no_verdict() -> None:
    nothing = float("nan")
    against = {"measured rates": {"n": 3, "rho": 0.5, "ci_low": nothing, "ci_high": nothing}}
    assert _told(against) == (
        "Whether latent changes go with the change of measured rates is unknown (3 categories; an interval "
        "needs 6)"
    )


def test_tasks_and_runs_of_one_category_are_one_point() -> None:
    """Means per category: latents 1, 2, 3; rates 2 (of 1 and 3), 1, 3: ranks 2, 1, 3, so rho 1/2."""
    rows = [("a", 1, 1), ("a", 1, 3), ("b", 2, 1), ("c", 3, 3)]
    points = [{"category": c, "latents": x, "rate": y} for c, x, y in rows for _ in range(4)]
    found = correlation(points, "rate")
    assert (found["n"], found["rho"]) == (3, pytest.approx(0.5))
    assert np.isnan([found["ci_low"], found["ci_high"]]).all()
    assert "is unknown (3 categories" in _told({"measured rates": found})


def test_copies_of_points_do_not_narrow_the_interval() -> None:
    points = [{"category": str(n), "latents": n, "rate": (n * 5) % 7} for n in range(7)]
    assert correlation(points * 9, "rate") == correlation(points, "rate")
