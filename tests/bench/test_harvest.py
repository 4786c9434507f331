"""The harvest benchmark runs and its figures belong together."""

from __future__ import annotations

from crossdiff.bench.harvest import main


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
