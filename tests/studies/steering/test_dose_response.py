"""Curves out of a table: verdicts of single directions, and all of them together."""

import math

import pandas as pd
import pytest

from crossdiff.studies.steering.dose_response import pooled, read_curves, verdicts

NAN = float("nan")


def table(latent: dict[float, int], drawn: dict[float, int], *, n: int = 20) -> pd.DataFrame:
    rows = [
        {
            "latent": 7,
            "direction": direction,
            "dose": dose,
            "place": "own",
            "shown": shown,
            "n": n,
            "n_empty": 0,
        }
        for direction, counts in (("latent", latent), ("random_0", drawn))
        for dose, shown in counts.items()
    ]
    return pd.DataFrame(rows)


def test_a_rising_latent_a_flat_draw_and_their_common_start() -> None:
    rows = table({-1: 0, 0: 4, 0.5: 10, 1: 16, 2: 0, NAN: 1}, {-1: 5, 0.5: 5, 1: 4, 2: 20, NAN: 6})
    own, drawn = read_curves(rows)
    assert own.counts[0.0] == drawn.counts[0.0] == (4, 20)
    assert (own.removed, drawn.removed) == ((1, 20), (6, 20))
    assert own.verdict(1.0) == "rises"
    assert drawn.verdict(1.0) == "flat"  # what happens at dose 2 is not tested
    assert drawn.verdict(2.0) == "rises"
    assert own.stratum(1.0) == ([0.0, 0.5, 1.0], [4, 10, 16], [20, 20, 20])


def test_falling_and_silent_directions() -> None:
    falling, silent = read_curves(table({0: 18, 0.5: 9, 1: 2, NAN: 0}, {0.5: 9, 1: 2, NAN: 0}))
    assert falling.verdict(1.0) == silent.verdict(1.0) == "falls"
    silent = read_curves(table({0: 0, 1: 0, NAN: 0}, {1: 0, NAN: 0}))
    assert verdicts(silent, 1.0) | {"z_together": None} == {
        "n": 2, "rises": 0, "falls": 0, "flat": 0, "silent": 2, "z_together": None,
    }  # fmt: skip
    assert math.isnan(verdicts(silent, 1.0)["z_together"])


def test_rates_of_several_curves_are_summed() -> None:
    found = pooled(read_curves(table({0: 4, 1: 16, NAN: 1}, {1: 4, NAN: 6})))
    assert found["0"]["rate"] == pytest.approx(8 / 40)
    assert found["1"]["rate"] == pytest.approx(20 / 40)
    assert (found["removed"]["shown"], found["removed"]["n"]) == (7, 40)
    assert found["1"]["low"] < 0.5 < found["1"]["high"]
