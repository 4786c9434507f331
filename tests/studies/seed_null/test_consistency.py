"""Consistency of two seeds: permuted decoders are alike, groups are kept apart, chance is shown."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.io.tables import read_json, write_table
from crossdiff.settings import Runtime
from crossdiff.studies.seed_null.consistency import ConsistencyInputs, alike, members, run


def side(folder: Path, name: str, order: list[int]) -> dict[str, Path]:
    """Ten latents in an order: the first four exclusive to tuned, one to base, one dead, four shared."""
    crosscoder = Crosscoder(DictionarySettings(n_latents=10), n_models=2, d_model=8)
    directions = torch.randn(10, 2, 8, generator=torch.Generator().manual_seed(0))
    crosscoder.decoder.data = -2 * directions[order] if name == "b" else directions[order]
    crosscoder.save(folder / f"train_{name}" / "crosscoder")
    exclusive = np.array(["tuned"] * 4 + ["base"] + [None] * 5, dtype=object)[order]
    active = np.array([9] * 5 + [0] + [9] * 4)[order]
    (folder / f"scale_{name}").mkdir()
    table = pd.DataFrame({"latent": range(10), "exclusive_to": exclusive, "n_active": active})
    write_table(table, folder / f"scale_{name}" / "latents.parquet", version=1, kind="latents")
    return {f"{what}_{name}": folder / f"{what}_{name}" for what in ("train", "scale")}


def test_the_same_latents_in_another_order_are_fully_consistent(tmp_path: Path) -> None:
    parents = side(tmp_path, "a", list(range(10))) | side(tmp_path, "b", [9, 3, 1, 5, 0, 2, 8, 4, 7, 6])
    run(ConsistencyInputs(), parents, tmp_path, Runtime())
    record = read_json(tmp_path / "consistency.json")
    for group in ("exclusive", "shared"):
        assert record[group]["n_latents"] == [4, 4]
        assert record[group]["pw_mcc"] == pytest.approx(1.0)
        assert 0.1 < record[group]["by_chance"] < 0.6


def test_base_only_and_dead_latents_belong_to_no_group() -> None:
    table = pd.DataFrame({"exclusive_to": ["tuned", "base", None, None], "n_active": [1, 1, 0, 1]})
    assert members(table, "exclusive") == [0]
    assert members(table, "shared") == [3]


def test_too_many_latents_or_none_are_not_computed_and_counted() -> None:
    directions = torch.eye(4)
    for first in (directions, directions[:0]):
        found = alike(first, directions, ConsistencyInputs(max_latents=3))
        assert found == {"n_latents": [len(first), 4], "pw_mcc": None, "by_chance": None}
