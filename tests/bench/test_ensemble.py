"""The benchmark of intervals over crosscoder seeds, in a small size."""

from __future__ import annotations

import json

from experiments.bench.ensemble import main


def test_a_small_run_gives_every_rate() -> None:
    found = main(["n_simulations=10"])
    assert json.loads(json.dumps(found))["rates"].keys() == {"0.5", "1", "2", "mixed"}
    for rates in found["rates"].values():
        assert rates.keys() == {"R=2", "R=3", "R=4", "R=8"}
        assert all(row["coverage"] > 0.85 for row in rates.values())
