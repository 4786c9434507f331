"""Scores of exclusive calls against planted truth, worked out by hand."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.studies.planted.score import recover, score
from crossdiff.studies.planted.world import Planted, PlantedSettings

SETTINGS = PlantedSettings(
    d_model=40, n_shared=2, n_rotated=0, n_base_only=0, n_tuned_only=4, n_shrunken=2, n_decoupled=0,
    frequencies=(0.05, 0.005), scales=(1.0, 1.0),
)  # fmt: skip


@pytest.fixture(scope="module")
def planted() -> Planted:
    """Latents 0, 1 shared; 2 to 5 tuned-only (2, 3 frequent, 4, 5 rare); 6, 7 shrunken."""
    return Planted(SETTINGS, seed=0)


@pytest.fixture(scope="module")
def crosscoder(planted: Planted) -> Crosscoder:
    """The planted directions in reverse order, and one more that resembles none."""
    found = Crosscoder(DictionarySettings(n_latents=9), n_models=2, d_model=40)
    with torch.no_grad():
        found.decoder[:8] = planted.directions.flip(0)
        found.decoder[8] = torch.randn(2, 40, generator=torch.Generator().manual_seed(9))
    return found


def table(called: list[int], by_norm: list[int], dead: tuple[int, ...] = ()) -> pd.DataFrame:
    kinds = ["tuned_only" if j in by_norm else "dead" if j in dead else "shared" for j in range(9)]
    owner = ["tuned" if j in called else None for j in range(9)]
    return pd.DataFrame({"kind": kinds, "exclusive_to": pd.Series(owner, dtype=object)})


def test_planted_latents_find_their_learned_ones(planted: Planted, crosscoder: Crosscoder) -> None:
    alive = torch.ones(9, dtype=torch.bool)
    found = recover(crosscoder, planted, alive=alive)
    assert found.latent.tolist() == [7, 6, 5, 4, 3, 2, 1, 0]
    assert float(found.cosine.min()) == pytest.approx(1)
    alive[7] = False
    assert float(recover(crosscoder, planted, alive=alive).cosine[0]) < 0.7


def test_precision_recall_and_f1_by_hand(planted: Planted, crosscoder: Crosscoder) -> None:
    # learned j resembles planted 7 - j. Called: planted 2, 3 (frequent, right), 4 (rare, right),
    # 6 (shrunken, wrong, frequent) and the ninth, which resembles none (wrong in both groups)
    row = score(table([5, 4, 3, 1, 8], by_norm=[5]), crosscoder, planted)
    assert row["scaling_precision_frequent"] == pytest.approx(2 / 4)
    assert row["scaling_recall_frequent"] == 1
    assert row["scaling_f1_frequent"] == pytest.approx(2 / 3)
    assert row["scaling_precision_rare"] == pytest.approx(1 / 2)
    assert row["scaling_recall_rare"] == pytest.approx(1 / 2)
    assert row["scaling_called_shrunken"] == 1
    assert row["scaling_called_unmatched"] == 1
    assert row["scaling_called_tuned_only"] == 3
    assert row["norm_recall_frequent"] == pytest.approx(1 / 2)
    assert row["norm_f1_rare"] == 0
    assert row["mean_max_cosine"] == pytest.approx(1)


def test_no_call_at_all_has_no_precision_and_an_f1_of_zero(planted: Planted, crosscoder: Crosscoder) -> None:
    row = score(table([], by_norm=[]), crosscoder, planted)
    assert row["scaling_precision_all"] is None
    assert row["scaling_f1_all"] == 0
