"""Scores of exclusive calls against planted truth, worked out by hand."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.studies.planted.score import recover, score, score_difference
from crossdiff.studies.planted.settings import PlantedSettings
from crossdiff.studies.planted.world import Planted

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
    # 6 (shrunken, wrong, frequent) and the ninth, which resembles none: no band, but wrong among all
    row = score(table([5, 4, 3, 1, 8], by_norm=[5]), crosscoder, planted)
    assert row["scaling_precision_frequent"] == pytest.approx(2 / 3)
    assert row["scaling_recall_frequent"] == 1
    assert row["scaling_f1_frequent"] == pytest.approx(4 / 5)
    assert row["scaling_precision_rare"] == 1
    assert row["scaling_recall_rare"] == pytest.approx(1 / 2)
    assert row["scaling_precision_all"] == pytest.approx(3 / 5)
    assert row["scaling_recall_all"] == pytest.approx(3 / 4)
    assert row["scaling_f1_all"] == pytest.approx(2 / 3)
    assert row["scaling_recall_scarce"] is None
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


def test_the_extra_base_activity_of_a_decoupled_latent_is_base_only_in_truth() -> None:
    # truth 0: base-only, 1: tuned-only, 2: decoupled, 3: the extra of 2, (u, 0), at 1 / sqrt 2 to it
    counts = dict.fromkeys(("n_shared", "n_rotated", "n_shrunken"), 0)
    settings = PlantedSettings(
        d_model=40, n_base_only=1, n_tuned_only=1, n_decoupled=1, scales=(1.0, 1.0), **counts
    )
    planted = Planted(settings, seed=0)
    crosscoder = Crosscoder(DictionarySettings(n_latents=9), n_models=2, d_model=40)
    with torch.no_grad():
        crosscoder.decoder.normal_(generator=torch.Generator().manual_seed(9))
        crosscoder.decoder[:3] = planted.directions
        crosscoder.decoder[3] = planted.directions[2] * torch.tensor([[1.0], [0.0]])
    found = recover(crosscoder, planted, alive=torch.ones(9, dtype=torch.bool))
    assert found.owner[:4].tolist() == [0, 1, 2, 3]
    assert found.learned_cosine[:4].tolist() == pytest.approx([1, 1, 1, 1])
    calls = pd.DataFrame({
        "kind": "shared",
        "exclusive_to": pd.Series(["base", "tuned", None, "base", *[None] * 5], dtype=object),
    })  # fmt: skip
    row = score(calls, crosscoder, planted)
    assert (row["scaling_base_precision_all"], row["scaling_base_recall_all"]) == (1, 1)
    assert (row["scaling_precision_all"], row["scaling_recall_all"]) == (1, 1)
    calls.loc[3, "exclusive_to"] = "tuned"  # the same latent called for the wrong side
    row = score(calls, crosscoder, planted)
    assert row["scaling_called_base_extra"] == 1
    assert row["scaling_precision_all"] == pytest.approx(1 / 2)
    assert row["scaling_base_recall_all"] == pytest.approx(1 / 2)


def test_a_dictionary_of_differences_is_scored_by_directions_and_signs(planted: Planted) -> None:
    """It holds tuned-only 2 to 4 of 2 to 5 and both shrunken; of three signs on the former two are up."""
    found = Crosscoder(DictionarySettings(n_latents=5, architecture="diff_sae"), n_models=1, d_model=40)
    with torch.no_grad():
        found.decoder[:, 0] = planted.directions[[2, 3, 4, 6, 7], 1]
    signs = ["up", "up", "down", "up", None]
    frame = pd.DataFrame({"kind": ["other"] * 5, "sign": pd.Series(signs, dtype=object)})
    row = score_difference(frame, found, planted)
    assert (row["held_tuned_frequent"], row["held_tuned_rare"], row["held_tuned_all"]) == (1, 0.5, 0.75)
    assert row["sign_right"] == pytest.approx(2 / 3)
    assert (row["n_up"], row["n_down"]) == (3, 1)
    assert "scaling_f1_all" not in row
