"""Histograms of codes, by hand."""

from __future__ import annotations

import torch

from crossdiff.core.code_histogram import CodeHistogram


def test_codes_fall_into_half_octaves() -> None:
    """1 and 1.4 lie below sqrt(2), 1.5 and 1.9 above; 4 is two doublings on."""
    histogram = CodeHistogram.empty(2)
    histogram.add(torch.tensor([[1.0, 0.0], [1.4, 0.0], [1.5, 0.0], [1.9, 0.0]]))
    histogram.add(torch.tensor([[4.0, 0.0], [0.0, 0.0]]))
    found = histogram.of(0)
    assert found is not None
    assert found["edges"] == [1.0, 1.41421, 2.0, 2.82843, 4.0, 5.65685]
    assert found["counts"] == [2, 2, 0, 0, 1]
    assert histogram.of(1) is None


def test_what_lies_outside_is_counted_in_the_end_bins() -> None:
    histogram = CodeHistogram.empty(1)
    histogram.add(torch.tensor([[1e-9], [1e9]]))
    assert int(histogram.counts[0, 0]) == int(histogram.counts[0, -1]) == 1
