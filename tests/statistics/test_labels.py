"""Counting and resampling the latents of one pair."""

from __future__ import annotations

import numpy as np
import pytest

from crossdiff.statistics.labels import Side


def test_counts_are_by_name() -> None:
    assert Side(["a", "a", "b", "c"]).counts(["a", "b", "x"]).tolist() == [2, 1, 0]


def test_draws_have_the_moments_of_latents_drawn_with_replacement() -> None:
    drawn = Side(["a"] * 30 + ["b"] * 70).draw(["a"], draws=20_000, generator=np.random.default_rng(0))
    assert drawn.mean() == pytest.approx(30, abs=0.2)
    assert drawn.std() == pytest.approx(np.sqrt(100 * 0.3 * 0.7), rel=0.03)


def test_an_empty_side_draws_zeros() -> None:
    assert Side([]).draw(["a", "b"], draws=3, generator=np.random.default_rng(0)).tolist() == [[0, 0]] * 3
