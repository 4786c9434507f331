"""One pair: bimodality by hand, and the sentence for two groups, one group and too few."""

from collections import Counter

import numpy as np
import pytest

from crossdiff.studies.one_pair import OnePair, bimodality
from tests.study_products import latent_table, write_run


def test_two_equal_spikes_are_bimodal_and_a_normal_is_not() -> None:
    # for n = 4 values -1, -1, 1, 1: skewness 0, bias-corrected excess kurtosis -6, correction 3 * 9 / 2
    assert bimodality(np.array([-1.0, -1, 1, 1])) == pytest.approx(1 / (13.5 - 6))
    draw = np.random.default_rng(0)
    assert bimodality(draw.normal(size=4000)) == pytest.approx(1 / 3, abs=0.03)
    assert bimodality(np.r_[draw.normal(0, 0.1, 500), draw.normal(5, 0.1, 500)]) > 0.9


def test_the_sentence_follows_the_intervals(tmp_path) -> None:
    table = latent_table(delta_norm=np.full(200, 0.95))
    run = write_run(tmp_path / "pair", {"pt_it": Counter({"mathematics": 7})}, latents=table)
    found = OnePair().analyse({"pair": run}, {})
    assert "nu_error separates into two groups" in found.answer
    assert "nu_reconstruction is one group" in found.answer


def test_too_few_are_not_judged(tmp_path) -> None:
    run = write_run(tmp_path / "pair", {"pt_it": Counter({"mathematics": 7})})
    assert "too few to say" in OnePair().analyse({"pair": run}, {}).answer


def test_a_ratio_that_few_latents_have_is_not_judged(tmp_path) -> None:
    table = latent_table(n=20, delta_norm=np.full(20, 0.95))
    table = table.assign(nu_error=np.nan, nu_reconstruction=0.5)
    run = write_run(tmp_path / "pair", {"pt_it": Counter({"mathematics": 7})}, latents=table)
    answer = OnePair().analyse({"pair": run}, {}).answer
    assert "among 20 with delta_norm above 0.9, nu_error is known for 0, too few to judge" in answer
    assert "nu_reconstruction is the same for all, so it separates nothing" in answer
    assert "nan" not in answer
