"""The account of a step, by hand for the paper's crosscoder."""

from __future__ import annotations

import pytest

from experiments.bench.roofline import main


def test_the_paper_crosscoder_fits_80_gb_and_its_product_takes_what_the_peak_says() -> None:
    found = main([])
    # 2 x 4,096 tokens x 7,168 x 114,688 latents over 790 TFLOP/s
    assert found["milliseconds"]["encoder product"] == pytest.approx(8.525, rel=1e-3)
    # weights, gradient and two moments: 4 x 4 bytes x 2 x 114,688 x 7,168 = 26.3 GB
    held = found["memory_gb"]
    assert held["weights"] + held["moments"] + held["gradients"] == pytest.approx(26.3, rel=1e-2)
    assert found["fits"]
    # 400 x 1,024 kept entries, one row of 7,168 float32 each: 11.74 GB
    assert found["bytes"]["decode"] == pytest.approx(11.744e9, rel=1e-3)
    assert found["hours"] == pytest.approx(200e6 / found["tokens_per_s"] / 3600)


def test_narrow_moments_and_rows_are_cheaper() -> None:
    wide, narrow = main([]), main(["moments=bf16", "rows=bf16"])
    assert narrow["memory_gb"]["moments"] == pytest.approx(wide["memory_gb"]["moments"] / 2)
    assert narrow["ratio_to_encoder_product"] < wide["ratio_to_encoder_product"]
