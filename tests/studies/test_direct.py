"""Direct: fewer latents, and the signature of a pair that is too similar."""

from collections import Counter

import numpy as np
import pytest

from crossdiff.studies.direct import Direct, fewer_test
from tests.study_products import latent_table, write_run


def test_the_exact_test_by_hand() -> None:
    # 0 of 5: (1/2)^5
    assert fewer_test(0, 5)["p"] == pytest.approx(1 / 32)
    assert fewer_test(0, 0)["p"] is None


def test_a_similar_pair_says_so(make_run, tmp_path) -> None:
    base = make_run("base", {"mathematics": 40}, {"mathematics": 35}, latents=far())
    direct = write_run(tmp_path / "direct", {"it_simpo": Counter({"mathematics": 5})})
    found = Direct().analyse({"base": base, "direct": direct}, {})
    assert "5 tuned-exclusive latents, fewer than either base comparison" in found.answer
    assert "its outer norm bins are empty" in found.answer
    assert "this pair is too similar" in found.answer
    assert found.numbers["pairs"]["pt_it"]["n_above_0.9"] == 50


def test_a_crosscoder_trained_too_short_is_not_called_a_similar_pair(make_run, tmp_path) -> None:
    base = make_run("base", {"mathematics": 40}, {"mathematics": 35}, latents=far())
    direct = write_run(tmp_path / "direct", {"it_simpo": Counter({"mathematics": 5})})
    signature = {"verdict": "trained_too_short", "sentence": "Raise training.n_steps."}
    direct.summary["pairs"]["it_simpo"]["signature"] = signature
    found = Direct().analyse({"base": base, "direct": direct}, {})
    assert "too similar" not in found.answer
    assert "trained too short to say how similar" in found.answer
    assert "it_simpo: Raise training.n_steps." in found.notes


def far():
    return latent_table(delta_norm=np.r_[np.full(50, 0.97), np.full(150, 0.5)])


def test_a_direct_pair_that_is_dead_says_nothing(make_run, tmp_path) -> None:
    base = make_run("base", {"mathematics": 40}, {"mathematics": 35})
    dead = latent_table(n=3, delta_norm=np.full(3, np.nan)).assign(kind="dead")
    direct = write_run(tmp_path / "direct", {"it_simpo": Counter()}, latents=dead)
    answer = Direct().analyse({"base": base, "direct": direct}, {}).answer
    assert answer.endswith("none of its latents was ever active, so its norms say nothing.")
    assert "nan" not in answer
