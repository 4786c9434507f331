"""The table of a difference dictionary: planted signs, what leaves them undecided, and its diagnostics."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import torch
from torch import Tensor

from crossdiff.core.difference_effect import BASE, TUNED, EffectSums
from crossdiff.core.difference_table import diagnose_difference, difference_table, sign_table
from crossdiff.core.documented_latents import choose_latents
from crossdiff.core.exclusive_call import SelectionSettings
from tests.core.test_difference_effect import dictionary, sums_of

DIRECTIONS = torch.tensor([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, -1]])


@pytest.fixture(scope="module")
def planted() -> tuple[Tensor, Tensor]:
    """1,200 tokens in 60 documents: tuned gains the first axis, loses the second, turns the third about; the
    fourth is there in two documents alone."""
    generator = torch.Generator().manual_seed(3)
    x = 0.1 * torch.randn(1200, 2, 4, generator=generator)
    fires = torch.rand(1200, 3, generator=generator) < 0.2
    x[:, TUNED, 0] += 2 * fires[:, 0]
    x[:, BASE, 1] += 3 * fires[:, 1]
    x[:, BASE, 2] -= fires[:, 2] * 1.5
    x[:, TUNED, 2] += fires[:, 2] * 1.5
    x[:40, TUNED, 3] += 2
    return x, torch.arange(1200) // 20


@pytest.fixture(scope="module")
def table(planted: tuple[Tensor, Tensor]) -> pd.DataFrame:
    return difference_table(dictionary(DIRECTIONS, threshold=1.0), [planted])


def test_signs_of_planted_effects(table: pd.DataFrame) -> None:
    signs = table["sign"].tolist()
    assert signs == ["up", "down", "undecided", "undecided", None]
    assert table["effect"][:2].round(1).tolist() == [1, -1]
    assert abs(table["effect"][2]) < 0.1  # both models move as far
    assert table["n_documents"].tolist()[3:] == [2, 0]
    assert table["kind"].tolist() == ["other"] * 4 + ["dead"]
    assert set(table["call"]) == {"no_call"}
    assert table["exclusive_to"].isna().all()
    assert table["shift_tuned"][4:].isna().all()


def test_without_documents_no_sign_is_decided(planted: tuple[Tensor, Tensor]) -> None:
    crosscoder = dictionary(DIRECTIONS, threshold=1.0)
    sums = EffectSums.empty(crosscoder, documents=False)
    sums.add(crosscoder, planted[0])
    found = sign_table(crosscoder, sums, SelectionSettings())
    assert found["sign"].dropna().tolist() == ["undecided"] * 4
    assert found["n_documents"].isna().all()


def test_diagnostics_are_json_and_signs_choose_the_documented_latents(
    planted: tuple[Tensor, Tensor], table: pd.DataFrame
) -> None:
    sums = sums_of(dictionary(DIRECTIONS, threshold=1.0), *planted)
    found = json.loads(json.dumps(diagnose_difference(table, sums), allow_nan=False))
    assert found["signs"] == {"up": 1, "down": 1, "undecided": 2}
    assert found["n_alive"] == 4
    assert found["fve"]["difference"] > 0.9
    chosen = choose_latents(table, n_controls=5, max_latents=9, seed=0)
    assert chosen.latents == [(0, "effect_up"), (1, "effect_down")]
    assert chosen.not_taken == {"up": 0, "down": 0}
