"""The power line against its published figures."""

from __future__ import annotations

import numpy as np

from crossdiff.statistics.power import power_line, smallest_visible_ratio


def test_92_against_113_latents_show_no_less_than_2_2_and_5_6_fold() -> None:
    sentence = str(power_line(n_reference=113, n_treatment=92)["sentence"])
    assert "x2.2 for a 20% share and x5.6 for a 5% share" in sentence


def test_a_test_at_that_ratio_succeeds_in_about_80_percent() -> None:
    ratio = smallest_visible_ratio(0.2, n_reference=2000, n_treatment=2000)
    generator = np.random.default_rng(0)
    reference = generator.binomial(2000, 0.2, 20_000) / 2000
    treatment = generator.binomial(2000, 0.2 * ratio, 20_000) / 2000
    pooled = (reference + treatment) / 2
    found = np.abs(treatment - reference) / np.sqrt(pooled * (1 - pooled) / 1000) > 1.96
    assert 0.75 < found.mean() < 0.87


def test_an_empty_side_can_show_nothing() -> None:
    line = power_line(n_reference=0, n_treatment=5)
    assert "no change can be measured" in str(line["sentence"])
    assert np.isnan(smallest_visible_ratio(0.2, n_reference=0, n_treatment=5))
