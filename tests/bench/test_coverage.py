"""Coverage of the intervals: the promised range in the full study, plain figures in a small one."""

from __future__ import annotations

import json

import pytest

from experiments.bench.coverage import main


@pytest.mark.slow
def test_intervals_cover_the_value_on_a_hundred_times_the_tokens() -> None:
    found = main([])
    for name in ("nu_error", "nu_reconstruction"):
        assert found[name]["n_cases"] >= 500
        assert 0.93 <= found[name]["covered"] <= 0.97


def test_a_small_study_counts_its_cases_and_covers_most() -> None:
    found = main(["n_documents=128", "n_samples=6", "per_kind=2", "d_model=24", "min_documents=20"])
    assert json.loads(json.dumps(found)) == found
    for name in ("nu_error", "nu_reconstruction"):
        assert found[name]["n_cases"] > 20
        assert found[name]["covered"] > 0.7


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ValueError, match="n_layers"):
        main(["n_layers=3"])
