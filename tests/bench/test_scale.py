"""The scale benchmark runs at a small size and reports what it promises."""

from __future__ import annotations

import json

import pytest

from experiments.bench.scale import main


def test_it_reports_a_ratio_and_a_state_of_fixed_size_per_latent() -> None:
    found = main(["d_model=16", "n_latents=64", "k=4", "n_tokens=512", "batch=128", "rounds=1", "threads=1"])
    assert json.loads(json.dumps(found)) == found
    assert found["ratio"] > 0
    assert found["l0"] == pytest.approx(4, rel=0.2)
    assert found["state_mb"] < 1


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ValueError, match="n_layers"):
        main(["n_layers=3"])
