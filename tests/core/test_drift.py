"""Drift by hand, and planted: a shared latent that one model uses a known factor more."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.documented_latents import choose_latents
from crossdiff.core.drift import MIN_DOCUMENTS, drift, drifted
from crossdiff.core.latent_table import latent_scaling

BETAS = [f"beta_activation_{model}{probe}" for probe in ("", "_baseprobe") for model in ("base", "tuned")]


def table(*rows: tuple[float, float, float, float], **columns: object) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=BETAS)
    given = {"latent": range(len(rows)), "call": "not_exclusive", "kind": "shared", "n_documents": 100.0}
    return frame.assign(exclusive_to=None, **{**given, **columns})


def test_drift_by_hand() -> None:
    """Tuned probe 1 over 0.5, base probe 1.6 over 0.8: both log 2; then log 4 and log 1, halved: log 2."""
    found = drift(table((0.5, 1.0, 0.8, 1.6), (0.2, 0.8, 1.0, 1.0), (1.0, 0.25, 1.0, 0.25)))
    assert found == pytest.approx([math.log(2), math.log(2), -math.log(4)])


@pytest.mark.parametrize("bad", [0.0, -0.3, math.nan])
@pytest.mark.parametrize("place", range(4))
def test_a_beta_that_is_not_positive_gives_nan_and_is_counted(bad: float, place: int) -> None:
    betas = [0.5, 1.0, 0.5, 1.0]
    betas[place] = bad
    rows = table((betas[0], betas[1], betas[2], betas[3]), (0.5, 1.0, 0.5, 1.0))
    assert np.isnan(drift(rows)).tolist() == [True, False]
    found = drifted(rows)
    assert (found.latents, found.n_unknown) == ([1], 1)


def test_a_table_without_betas_has_no_drift() -> None:
    assert np.isnan(drift(table((1.0, 1.0, 1.0, 1.0)).drop(columns=BETAS[0]))).all()


def test_only_shared_latents_with_enough_documents_are_ranked_the_largest_size_first() -> None:
    doubled, halved, equal = (0.5, 1.0, 0.5, 1.0), (1.0, 0.2, 1.0, 0.2), (1.0, 1.0, 1.0, 1.0)
    rows = table(
        equal, doubled, halved, halved, halved, doubled,
        call=["not_exclusive"] * 3 + ["exclusive", "undecided", "not_exclusive"],
        n_documents=[MIN_DOCUMENTS] * 5 + [MIN_DOCUMENTS - 1],
    )  # fmt: skip
    found = drifted(rows)
    assert found.latents == [2, 1, 0]
    assert found.drift == pytest.approx([-math.log(5), math.log(2), 0])


def test_with_intervals_the_surest_drift_comes_first() -> None:
    """Bounds nearer to 0: 0.5, none (holds 0), 0.9 below, unknown."""
    rows = table(
        *[(1.0, 2.0, 1.0, 2.0)] * 4,
        drift_low=[0.5, -1.0, -2.0, math.nan],
        drift_high=[0.9, 3.0, -0.9, math.nan],
    )
    assert drifted(rows).latents == [2, 0, 1, 3]


def test_a_drifted_latent_that_is_a_control_stays_one() -> None:
    rows = table(*[(1.0, 1.0 + n, 1.0, 1.0 + n) for n in range(6)], drift_low=math.nan, drift_high=math.nan)
    before = choose_latents(rows, n_controls=2, max_latents=9, seed=0).latents
    after = choose_latents(rows, n_controls=2, max_latents=9, seed=0, n_drifted=4).latents
    assert after[:2] == before
    assert {latent for latent, _ in after} == {2, 3, 4, 5} | {latent for latent, _ in before}
    assert len(after) == len({latent for latent, _ in after})


def test_an_older_table_gives_no_documents_of_drifted_latents() -> None:
    rows = table(*[(1.0, 2.0, 1.0, 2.0)] * 3)
    with pytest.raises(ValueError, match="before drift had intervals; make the step `scale` again"):
        choose_latents(rows, n_controls=0, max_latents=9, seed=0, n_drifted=1)
    assert choose_latents(rows, n_controls=0, max_latents=9, seed=0).latents == []


N_LATENTS, D_MODEL, N_TOKENS = 6, 32, 8000
FACTORS = torch.tensor([1.0, 1.0, 2.0, 0.25, 1.0, 3.0])
ROTATED = 4


def planted(
    *, seed: int = 0, n_tokens: int = N_TOKENS, noise: float = 0.02
) -> tuple[Crosscoder, torch.Tensor]:
    """Latent j writes `FACTORS[j]` times as strongly into the tuned model; one is rotated by 45 degrees."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(D_MODEL, D_MODEL, generator=torch.Generator().manual_seed(9))).Q
    base = basis[:N_LATENTS].clone()
    tuned = base * FACTORS[:, None]
    tuned[ROTATED] = (base[ROTATED] + basis[N_LATENTS]) / math.sqrt(2)
    active = torch.rand(n_tokens, N_LATENTS, generator=generator) < 0.1
    code = active * (1 + torch.rand(n_tokens, N_LATENTS, generator=generator))
    x = torch.stack([code @ base, code @ tuned], dim=1)
    x += noise * torch.randn(x.shape, generator=generator)
    found = Crosscoder(DictionarySettings(n_latents=N_LATENTS), n_models=2, d_model=D_MODEL)
    with torch.no_grad():
        found.decoder.copy_(torch.stack([base, tuned], dim=1))
        found.encoder.copy_(torch.stack([base, torch.zeros_like(base)], dim=1))
        found.encoder_bias.zero_()
        found.decoder_bias.zero_()
        found.threshold.fill_(0.2)
    return found, x


def test_intervals_over_documents_hold_the_drift_of_a_large_sample() -> None:
    """Of 60 intervals of nominally 95 % at least 51 hold it (57 are expected)."""
    crosscoder, large = planted(seed=1, n_tokens=200_000, noise=0.3)
    truth = latent_scaling(crosscoder, [(large, torch.arange(len(large)) // 20)])["drift"]
    held = []
    for seed in range(2, 12):
        _, x = planted(seed=seed, n_tokens=4000, noise=0.3)
        found = latent_scaling(crosscoder, [(x, torch.arange(len(x)) // 20)])
        held += ((found["drift_low"] < truth) & (truth < found["drift_high"])).tolist()
    assert sum(held) >= 51, sum(held)
    assert latent_scaling(crosscoder, [x])["drift_low"].isna().to_numpy().all()  # no documents, no interval


def test_a_planted_factor_is_the_drift_and_a_rotation_is_none() -> None:
    crosscoder, x = planted()
    found = latent_scaling(crosscoder, [(x, torch.arange(N_TOKENS) // 20)])
    expected = FACTORS.log().tolist()
    assert found["drift"].tolist() == pytest.approx(expected, abs=0.02)
    betas = [float(found[f"beta_activation_{model}"].iloc[ROTATED]) for model in ("base", "tuned")]
    assert max(found["drift_high"] - found["drift_low"]) < 0.05
    assert math.log(betas[1] / betas[0]) == pytest.approx(math.log(2) / 2, abs=0.02), (
        "one probe alone calls the rotation drift"
    )
