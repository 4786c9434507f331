"""Diagnostics: the sentences, twins, shrinkage and decoupling, split halves."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from crossdiff.core.diagnostics import (
    diagnose,
    shrinkage_and_decoupling,
    signature,
    split_half,
    template_energy,
    twins,
)
from crossdiff.core.exclusive_call import SelectionSettings
from crossdiff.core.latent_scaling import empty_sums
from crossdiff.core.latent_table import Scaled, pair_table
from tests.scaling_artifacts import random_crosscoder

GENEROUS = SelectionSettings(nu_error=5, nu_reconstruction=5, min_tokens=5, min_documents=3)


def spread(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("delta_norm", "verdict"),
    [
        (spread(0.35, 0.45, 0.5, 0.55, 0.7), "too_similar"),
        (spread(0.05, 0.45, 0.5, 0.55, 0.7), "ordinary"),
        (spread(0.7, 0.75, 0.35, 0.8, 0.7), "too_distant"),
        (spread(*[0.02] * 10, *[0.97] * 10, 0.5), "too_distant"),
        (spread(*[0.02] * 4, *[0.97] * 4, 0.5, 0.5), "ordinary"),
        (spread(), "no_alive_latent"),
    ],
)
def test_the_failure_signatures_are_named(delta_norm: torch.Tensor, verdict: str) -> None:
    found = signature(delta_norm)
    assert found["verdict"] == verdict
    assert (found["sentence"] is None) == (verdict == "ordinary")
    if verdict == "too_similar":
        assert "too similar" in found["sentence"]
        assert "80%" in found["sentence"]


def test_twins_are_single_model_latents_with_nearly_equal_own_directions() -> None:
    table = pd.DataFrame({"latent": range(4), "kind": ["base_only", "tuned_only", "tuned_only", "shared"]})
    decoder = torch.zeros(4, 2, 3)
    decoder[0, 0] = torch.tensor([1.0, 0.0, 0.0])
    decoder[1, 1] = torch.tensor([2.0, 0.2, 0.0])  # cosine 0.995
    decoder[2, 1] = torch.tensor([1.0, 1.0, 0.0])  # cosine 0.707
    assert twins(table, decoder) == {"n": 1, "pairs": [{"tuned": 1, "base": 0, "cosine": 0.995}]}


def test_shrinkage_and_decoupling_are_counted_among_latents_that_norms_call_exclusive() -> None:
    table = pd.DataFrame(
        {
            "kind": ["tuned_only", "tuned_only", "tuned_only", "shared", "base_only"],
            "nu_error": [0.9, 0.1, -0.3, 0.9, 0.0],
            "nu_reconstruction": [0.1, 0.8, 0.1, 0.9, 0.0],
            "nu_error_baseprobe": [0.0, 0.0, 0.0, 0.0, 0.5],
            "nu_reconstruction_baseprobe": [0.0, 0.0, 0.0, 0.0, 0.1],
        }
    )
    found = shrinkage_and_decoupling(table, SelectionSettings())
    assert found["by_norm"] == {"tuned": 3, "base": 1}
    assert found["shrinkage"] == {"tuned": 2, "base": 1}
    assert found["decoupling"] == {"tuned": 1, "base": 0}


@pytest.fixture(scope="module")
def scaled() -> Scaled:
    crosscoder = random_crosscoder(32, 8, seed=1)
    sums = empty_sums(crosscoder, documents=True)
    x = 2 * torch.randn(4000, 2, 8, generator=torch.Generator().manual_seed(0))
    number = torch.arange(4000)
    sums.add(crosscoder, x, document=number // 40, template=number % 40 < 30)
    return Scaled.of(crosscoder.decoder, sums)


def test_template_energy_is_the_share_of_squared_codes_on_template_tokens(scaled: Scaled) -> None:
    calls = scaled.calls(GENEROUS)
    found = template_energy(pair_table(scaled, calls), scaled)
    shares = {**found["tuned"]["energy"], **found["base"]["energy"]}
    assert shares
    assert all(0.6 < share < 0.9 for share in shares.values())
    assert found["tuned"]["mainly_template"] == len(found["tuned"]["energy"])
    assert found["tuned"]["share"] == 1.0


def test_split_halves_agree_on_a_set_that_no_noise_can_change(scaled: Scaled) -> None:
    decoder = random_crosscoder(32, 8, seed=1).decoder
    found = split_half(scaled, decoder, GENEROUS)
    assert found is not None
    tuned = found["tuned"]
    assert tuned["both"] <= min(tuned["first"], tuned["second"])
    assert tuned["jaccard"] == tuned["both"] / (tuned["first"] + tuned["second"] - tuned["both"])


def test_diagnose_counts_every_latent_once(scaled: Scaled) -> None:
    decoder, calls = random_crosscoder(32, 8, seed=1).decoder.detach(), scaled.calls(GENEROUS)
    found = diagnose(pair_table(scaled, calls), scaled, calls, decoder=decoder, selection=GENEROUS)
    assert sum(found["kinds"].values()) == sum(found["calls"].values()) == found["n_latents"] == 32
    assert found["n_alive"] == 31
    assert found["dead_share"] == pytest.approx(1 / 32)
    assert found["l0"] == pytest.approx(float(scaled.sums.n_active.sum()) / 4000)
    assert sum(found["delta_norm"]["counts"]) == 31


def test_a_training_too_short_is_said_before_similarity() -> None:
    """All latents start at one half: without the steps to leave it they cannot tell a similar pair."""
    start = torch.full((50,), 0.5, dtype=torch.float64)
    short = signature(start, reach=0.4)
    assert short["verdict"] == "trained_too_short"
    assert "Raise training.n_steps" in short["sentence"]
    assert "25-fold" in short["sentence"]
    assert signature(start, reach=80.0)["verdict"] == "too_similar"
    moved = torch.cat([start, torch.full((5,), 0.97, dtype=torch.float64)])
    assert signature(moved, reach=0.4)["verdict"] == "ordinary"
