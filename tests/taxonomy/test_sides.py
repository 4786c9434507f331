"""Counting and resampling the latents of one pair."""

from __future__ import annotations

import numpy as np
import pytest

from crossdiff.taxonomy.sides import Side


def test_counts_and_probabilities_agree_without_votes() -> None:
    side = Side(["a", "a", "b", "c"])
    assert side.counts(["a", "b", "x"]).tolist() == [2, 1, 0]
    assert side.probabilities(["a", "b", "x"]) == pytest.approx([0.5, 0.25, 0, 0.25])


def test_votes_are_averaged_over_latents_and_an_empty_vote_means_the_label() -> None:
    side = Side(["a", "b"], [{"a": 0.5, "b": 0.5}, {}])
    assert side.probabilities(["a", "b"]) == pytest.approx([0.25, 0.75, 0])


def test_draws_have_the_moments_of_latents_drawn_with_replacement() -> None:
    drawn = Side(["a"] * 30 + ["b"] * 70).draw(["a"], draws=20_000, generator=np.random.default_rng(0))
    assert drawn.mean() == pytest.approx(30, abs=0.2)
    assert drawn.std() == pytest.approx(np.sqrt(100 * 0.3 * 0.7), rel=0.03)


def test_an_empty_side_draws_zeros() -> None:
    assert Side([]).draw(["a", "b"], draws=3, generator=np.random.default_rng(0)).tolist() == [[0, 0]] * 3
