"""The harvest benchmark runs and its figures belong together."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.bench.harvest import main
from experiments.bench.harvest_load import model_memory


@pytest.mark.slow
def test_a_small_benchmark_reports_passes_disk_and_padding() -> None:
    sizes = ["d_model=64", "n_blocks=3", "layer=0", "n_tokens=3000", "context=128", "rounds=1", "threads=1"]
    found = main([*sizes, "io_gb=0.01", "io_d_model=64", "memory=false"])
    assert found["harvest_s"] > 0
    assert 0 <= found["padding_share"] <= 0.05
    assert found["parameters_kept_mb"] < found["parameters_full_mb"]
    assert 0.99 < found["int8_share_of_variance"] < 1
    assert 0.0105 < found["read_gb"] < 0.0115  # rows of 128 bytes, each with 8 of check sum and 4 of norm
    assert found["toy_load_of_step"] > 0
    assert 0 < found["padding_share_bucket"] < found["padding_share_unsorted"] < 1
    assert found["write_ratio"] > 0
    assert found["read_ratio"] > 0


@pytest.mark.slow
def test_a_harvest_at_block_20_of_42_peaks_at_about_half_of_the_whole_model(tmp_path: Path) -> None:
    found = model_memory(tmp_path, d_model=384)
    print(found)
    assert 300 < found["model_weights_mb"] < 500
    assert found["model_peak_mb_full"] > 0.9 * found["model_weights_mb"]
    assert 0.4 < found["model_peak_ratio"] <= 0.6
